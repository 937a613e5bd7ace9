"""Prometheus, PushGateway and Alertmanager for tests: ``python -m tests.services.monitoring`` gets what is not there.

Debian's packages of the suite below, unpacked into ``.services/monitoring`` and not installed: nothing is started, and nothing
needs root.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request

from .artifacts import CHECKOUT, Artifacts
from .stack import HOST, ServiceError, _die_with_parent, _free_ports

SUITE = "trixie"  # Prometheus 2.53, PushGateway 1.11, Alertmanager 0.28; bookworm's Alertmanager knows no url_file
PACKAGES = ("prometheus", "promtool", "prometheus-pushgateway", "prometheus-alertmanager")
MIRROR = "http://deb.debian.org/debian"
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
MONITORING = CHECKOUT / "monitoring"


class Tools(Artifacts):
    """Where the programs lie."""

    def __init__(self, root: pathlib.Path | None = None):
        super().__init__(root)
        self.folder = self.root / "monitoring"
        programs = self.folder / "usr" / "bin"
        self.prometheus, self.promtool, self.amtool = (programs / n for n in ("prometheus", "promtool", "amtool"))
        self.pushgateway = programs / "prometheus-pushgateway"

    def fetch(self, names: tuple[str, ...] = PACKAGES) -> Tools:  # type: ignore[override]
        """Fetches what is not there. A few seconds."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock("monitoring"):
            stamp = self.folder / ".stamp"
            wanted = f"{SUITE} {' '.join(names)}"
            if not stamp.is_file() or stamp.read_text() != wanted:
                shutil.rmtree(self.folder, ignore_errors=True)
                self._fetch_packages(names)
                stamp.write_text(wanted)
        return self

    def _fetch_packages(self, names: tuple[str, ...]) -> None:
        apt = self.root / "apt"
        shutil.rmtree(apt, ignore_errors=True)
        for folder in ("lists/partial", "cache/archives/partial", "parts", "debs"):
            (apt / folder).mkdir(parents=True)
        keyring = next((k for k in KEYRINGS if pathlib.Path(k).is_file()), None)
        if keyring is None:
            raise RuntimeError("Debian's archive keyring is not installed (apt-get install debian-archive-keyring)")
        (apt / "sources.list").write_text(f"deb [signed-by={keyring}] {_mirror()} {SUITE} main\n")
        options = [
            f"-oDir::Etc::sourcelist={apt}/sources.list", f"-oDir::Etc::sourceparts={apt}/parts",
            f"-oDir::State::lists={apt}/lists", f"-oDir::Cache={apt}/cache", "-oAPT::Sandbox::User=",
        ]  # fmt: skip
        _run(["apt-get", "-q", *options, "update"])
        _run(["apt-get", "-q", *options, "download", *names], cwd=apt / "debs")
        for package in (apt / "debs").glob("*.deb"):
            _run(["dpkg", "-x", package, self.folder])
        shutil.rmtree(apt)


def _mirror() -> str:
    """The mirror that this machine uses for Debian itself."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI)"], capture_output=True, text=True
    ).stdout
    found = [line.split(" ", 2)[2] for line in listed.splitlines() if line.startswith("Debian main ")]
    return next((uri for uri in found if "security" not in uri), MIRROR)


class Watch:
    """A PushGateway and a Prometheus with the product's configuration, its targets replaced by those of this machine.

    Args:
        directory: data and logs.
        targets: address by scrape job; jobs that are left out are dropped.
    """

    def __init__(self, directory: pathlib.Path, tools: Tools) -> None:
        self.directory, self.tools = directory, tools
        directory.mkdir(parents=True)
        gateway, prometheus = _free_ports(2)
        self.gateway_url, self.url = f"http://{HOST}:{gateway}", f"http://{HOST}:{prometheus}"
        self._processes: list[subprocess.Popen] = []

    def start_gateway(self) -> None:
        self._spawn(
            "pushgateway",
            [self.tools.pushgateway, f"--web.listen-address={self.gateway_url[7:]}", "--persistence.file="],
        )
        _wait(f"{self.gateway_url}/-/ready")

    def start_prometheus(self, targets: dict[str, str], interval: str = "1s") -> None:
        """Scrapes every `interval`, and the alerts' rules are those of the product."""
        config = configuration(targets | {"pushgateway": self.gateway_url[7:], "prometheus": self.url[7:]}, interval)
        (self.directory / "prometheus.yml").write_text(config)
        rules = self.directory / "rules"
        shutil.copytree(MONITORING / "prometheus" / "rules", rules)
        for file in rules.glob("*.yml"):
            file.write_text(re.sub(r"^    interval: \w+$", f"    interval: {interval}", file.read_text(), flags=re.M))
        self._spawn("prometheus", [
            self.tools.prometheus, f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}", f"--web.listen-address={self.url[7:]}",
        ])  # fmt: skip
        _wait(f"{self.url}/-/ready")

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _spawn(self, name: str, command: list) -> None:
        with open(self.directory / f"{name}.log", "ab") as log:
            self._processes.append(
                subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 preexec_fn=_die_with_parent)
            )  # fmt: skip


def configuration(targets: dict[str, str], interval: str) -> str:
    """The product's prometheus.yml with other targets; only the jobs that have one."""
    import yaml

    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    config.pop("alerting")
    kept = []
    for job in config["scrape_configs"]:
        if job["job_name"] in targets:
            job.pop("dns_sd_configs", None)
            kept.append(job | {"static_configs": [{"targets": [targets[job["job_name"]]]}]})
    config["scrape_configs"] = kept
    return yaml.safe_dump(config)


def get(url: str) -> str:
    """The text at an address, straight to the neighbour."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return answer.read().decode()


def _wait(url: str, limit: float = 30) -> None:
    end = time.monotonic() + limit
    while True:
        try:
            get(url)
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ServiceError(f"{url} does not answer: {error}") from None
            time.sleep(0.1)


def _run(command: list, **options) -> None:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        **options,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{(done.stdout + done.stderr)[-4000:]}")


if __name__ == "__main__":
    Tools().fetch()
