from __future__ import annotations

import pytest

from worker.secrets_by_name import is_secret_by_name


@pytest.mark.parametrize(
    "path",
    [
        b"etc/shadow", b"etc/shadow-", b"etc/gshadow", b"etc/ssh/ssh_host_ed25519_key", b"etc/ssl/private/site.pem",
        b"etc/ssl/private/deep/x", b"srv/app/tls.key", b"home/a/.ssh/id_rsa", b"home/a/.ssh/work", b"etc/krb5.keytab",
        b"etc/letsencrypt/live/x/privkey.pem", b"etc/wireguard/wg0.conf", b"etc/ppp/chap-secrets", b"x/private-key.pem",
        b"etc/NetworkManager/system-connections/Home.nmconnection", b"root/.aws/credentials", b"srv/.env",
        b"C/Windows/System32/config/SAM", b"C/Windows/System32/config/RegBack/SECURITY", b"C/Windows/NTDS/ntds.dit",
        b"C/Windows/System32/config/SYSTEM", b"C/ProgramData/Microsoft/Crypto/RSA/MachineKeys/abc", b"x/store.PFX",
    ],
)  # fmt: skip
def test_secrets(path: bytes) -> None:
    assert is_secret_by_name(path)


@pytest.mark.parametrize(
    "path",
    [
        b"etc/passwd", b"etc/hosts", b"etc/ssh/ssh_host_ed25519_key.pub", b"etc/ssl/certs/ca-certificates.crt",
        b"etc/ssl/certs/ISRG_Root_X1.pem", b"usr/bin/passwd.1", b"home/a/.ssh/known_hosts", b"etc/keyboard",
        b"var/lib/dpkg/info/passwd.list", b"C/Windows/System32/drivers/etc/hosts", b"etc/monkey.conf", b"",
        b"system", b"a/system/b",
    ],
)  # fmt: skip
def test_others(path: bytes) -> None:
    assert not is_secret_by_name(path)
