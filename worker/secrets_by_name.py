"""Files that are secrets by their name: always under the host's own key, never shared between hosts.

A name too many costs a little deduplication; a name too few lets who holds the shared domain's secret confirm a guess.
"""

from __future__ import annotations

import re

_NAMES = frozenset(
    b"""shadow shadow- gshadow gshadow- opasswd passwd.db shadow.db master.passwd sudoers.ldap
    id_rsa id_dsa id_ecdsa id_ed25519 id_ecdsa_sk id_ed25519_sk id_xmss identity
    .netrc .pgpass .my.cnf debian.cnf .git-credentials .htpasswd .vault-token .smbcredentials passdb.tdb secrets.tdb
    krb5.keytab krb5.conf.keytab wpa_supplicant.conf chap-secrets pap-secrets ipsec.secrets psk.txt psad.conf sasldb2
    secring.gpg ntds.dit credentials .credentials random-seed slurm.key munge.key rndc.key shosts.equiv
    unattend.xml sysprep.inf machinekeys""".split()
)
_PATTERN = re.compile(
    rb"""
    .*\.(?:key|p12|pfx|jks|keystore|kdbx?|ppk|keytab|pvk|agekey|ovpn|jceks|bcfks)
    | .*ssh_host_.*_key
    | .*(?:private|privkey|secret|-key|_key|\.key).*\.(?:pem|der|crt|asc|txt)
    | key.*\.pem | .*password.* | .*passwd | \.env(?:\..*)? | .*\.secrets?
    """,
    re.VERBOSE | re.DOTALL,
)
_NOT_NAMES = frozenset((b"passwd",))  # world-readable, holds no secret, and is alike on many hosts
_PUBLIC = (b".pub", b".so", b".py", b".mo", b".service", b".list", b".md5sums")
_FOLDERS = re.compile(
    rb"""(?:^|/)(?:
      etc/ssl/private | etc/pki/(?:tls|ca-trust|rsyslog)/private | etc/pki/private
    | etc/letsencrypt/(?:archive|live|keys|accounts)
    | etc/wireguard | etc/networkmanager/system-connections | etc/netplan
    | etc/iwd | var/lib/iwd | etc/ipsec\.d/private
    | etc/swanctl/(?:private|rsa|ecdsa|pkcs8|pkcs12) | etc/krb5kdc
    | var/kerberos | etc/credstore(?:\.encrypted)? | etc/secrets
    | private-keys-v1\.d | \.ssh | \.gnupg | \.aws | \.azure | \.kube | \.docker | etc/kubernetes/pki | etc/stateward
    | microsoft/crypto | microsoft/protect | microsoft/credentials
    | microsoft/vault | system32/microsoft/protect
    )/""",
    re.VERBOSE,
)
_HIVES = re.compile(rb"(?:^|/)system32/config/(?:regback/)?(?:sam|security|system|default|software)(?:\.log\d?|\.sav)?")
_IN_SSH_BUT_PUBLIC = frozenset((b"known_hosts", b"authorized_keys", b"config"))


def is_secret_by_name(tree_path: bytes) -> bool:
    """Whether a path in a tree names a secret. Upper and lower case are the same, on every system."""
    path = tree_path.lower()
    name = path.rsplit(b"/", 1)[-1]
    if name in _NAMES or _HIVES.search(path) is not None:
        return True
    if name.endswith(_PUBLIC) or name in _IN_SSH_BUT_PUBLIC:
        return False
    return _FOLDERS.search(path) is not None or (name not in _NOT_NAMES and _PATTERN.fullmatch(name) is not None)
