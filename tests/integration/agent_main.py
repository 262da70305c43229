"""The agent's process in its tests: the real agent, whose jobs are run by `agent_child.py`."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from common.telemetry import configure_logging
from worker import compose
from worker.agent import Agent
from worker.jobprocess import spawner
from worker.onlyone import only_one
from worker.settings import load_settings

HERE = Path(__file__).resolve().parent


def main() -> None:
    configure_logging(json=True)
    settings = load_settings(state=Path(sys.argv[1]), start_spread_s=0.0)
    journal = compose.open_journal(settings)
    with only_one(settings.state / compose.AGENT_LOCK, what="Another agent runs"):
        made = compose.make_agent(settings, journal)
        program = (sys.executable, str(HERE / "agent_child.py"))
        agent = Agent(replace(made._deps, spawn=spawner(program, settings.state, HERE)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=agent.stop, daemon=True).start())
        code = agent.run()
    sys.exit(code)


if __name__ == "__main__":
    main()
