"""Who is who: a certificate authority of the federation's own, the server's certificate, and the devices' keys."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtp.errors import FedtpError
from fedtp.folder import write_whole

CA_DAYS, SERVER_DAYS = 3650, 825
_PEM = serialization.Encoding.PEM
# A device whose clock is a little behind must not think that a certificate is from the future.
_LENIENT = timedelta(hours=1)


def write_authority(certificate: Path, key: Path) -> None:
    """Write the certificate and the private key of a new certificate authority."""
    private = ec.generate_private_key(ec.SECP384R1())
    name = _name("fedtp federation")
    made = (
        _certificate(name, name, private.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA384())
    )
    certificate.write_bytes(made.public_bytes(_PEM))
    _write_private(key, private, serialization.PrivateFormat.PKCS8)


def write_server(folder: Path, addresses: Iterable[str], *, days: float = SERVER_DAYS) -> None:
    """Write ``server.pem`` and ``server.key``, signed by the authority in the folder.

    Parameters
    ----------
    folder
        Where ``ca.crt`` and ``ca.key`` are.
    addresses
        Host names and IP addresses by which devices reach the server; those of this machine for itself are added.
    days
        How long the certificate is valid from now.

    Raises
    ------
    FedtpError
        If the authority cannot be read.
    """
    try:
        authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, ValueError) as error:
        raise FedtpError(f"the certificate authority in {folder} cannot be read: {error}") from None
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise FedtpError(f"{folder / 'ca.key'} is not a key of ours")
    private = ec.generate_private_key(ec.SECP384R1())
    names = dict.fromkeys([*addresses, "localhost", "127.0.0.1", "::1"])
    made = (
        _certificate(_name("fedtp server"), authority.subject, private.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
    _write_private(folder / "server.key", private, serialization.PrivateFormat.PKCS8)
    # Last: a server that runs takes both up when it sees this one.
    write_whole(folder / "server.pem", made.public_bytes(_PEM))


def write_device(private_file: Path, public_file: Path) -> None:
    """Write a device's key pair, which Flower knows it by."""
    private = ec.generate_private_key(ec.SECP384R1())
    _write_private(private_file, private, serialization.PrivateFormat.OpenSSH)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    public_file.write_bytes(public + b"\n")


def expiry(certificate: Path) -> datetime:
    """Return when a certificate ends.

    Raises
    ------
    FedtpError
        If it is none.
    """
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise FedtpError(f"{certificate} is not a certificate: {error}") from None


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + timedelta(days=days)) - _LENIENT)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, key_cert_sign: bool, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    """Write a private key that nobody else can read at any moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(_PEM, form, serialization.NoEncryption()))
