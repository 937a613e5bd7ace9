"""A certificate authority, a broker's and a client's certificate, and a password, for one test stack."""

from __future__ import annotations

import pathlib
import secrets
import subprocess

USER = "vqe"


class Security:
    """Files under a folder, made when they are missing, with the openssl command.

    ``ca``: the authority's certificate; ``client_cert``, ``client_key``: for mTLS; ``stranger_cert``, ``stranger_key``: of another
    authority, to be refused; ``user`` and ``password``: for SCRAM-SHA-512 and PLAIN.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.user = USER
        self.ca = folder / "ca.crt"
        self.server_pem = folder / "server.pem"
        self.client_cert, self.client_key = folder / "client.crt", folder / "client.key"
        self.stranger_cert, self.stranger_key = folder / "stranger.crt", folder / "stranger.key"
        if not self.server_pem.exists():
            self._make()
        self.password = (folder / "password").read_text()

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "password").write_text(secrets.token_urlsafe(18))
        self._authority("ca")
        self._authority("other-ca")
        names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
        self._certificate("client", "ca", "/CN=" + USER, names)
        self._certificate("stranger", "other-ca", "/CN=stranger", names)
        self._certificate("server", "ca", "/CN=localhost", names)
        # Key and chain in one file: what Kafka takes for ssl.keystore.type=PEM. Last, for it marks the set as complete.
        parts = [self.folder / "server.key", self.folder / "server.crt", self.ca]
        self.server_pem.write_text("".join(part.read_text() for part in parts))

    def _authority(self, name: str) -> None:
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN=test {name}",
                      "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip

    def _certificate(self, name: str, authority: str, subject: str, names: str) -> None:
        (self.folder / f"{name}.ext").write_text(names + "\n")
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", f"{name}.key",
                      "-out", f"{name}.csr")  # fmt: skip
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
                      "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.crt")  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"openssl {' '.join(arguments)}:\n{done.stderr}")

    def server_properties(self) -> str:
        """The broker's settings for its listeners SASL (SCRAM and PLAIN over TLS) and MTLS, and for rights on topics.

        Everybody may do what no rule forbids; the plaintext listener's user may do all.
        """
        tls = f"""\
ssl.keystore.type=PEM
ssl.keystore.location={self.server_pem}
ssl.truststore.type=PEM
ssl.truststore.location={self.ca}
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
"""
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{self.password}";'
        return (
            tls
            + "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
            + "allow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n"
            + "listener.name.sasl.ssl.client.auth=none\nlistener.name.mtls.ssl.client.auth=required\n"
            + f"listener.name.sasl.scram-sha-512.sasl.jaas.config={scram}\n"
            + f"listener.name.sasl.plain.sasl.jaas.config={plain}\n"
        )

    def scram_user(self) -> str:
        """The argument that creates the user when the broker's storage is formatted."""
        return f"SCRAM-SHA-512=[name={USER},password={self.password}]"
