"""Drives a key management server with PyKMIP's own client and says what came of each step, as JSON.

Arguments: host port ca certificate key owner person.pem person.key
"""

import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from kmip.core import enums
from kmip.core.factories.attributes import AttributeFactory
from kmip.core.attributes import Name
from kmip.pie import objects
from kmip.pie.client import ProxyKmipClient

host, port, ca, certificate, key, owner, person, person_key = sys.argv[1:9]
name = "sealgate/%s/%%s" % owner
with open(person, "rb") as file:
    leaf = x509.load_pem_x509_certificate(file.read())
with open(person_key, "rb") as file:
    secret = serialization.load_pem_private_key(file.read(), None)
said = {}


def named(text, kind):
    factory = AttributeFactory()
    text = Name.create(text, enums.NameType.UNINTERPRETED_TEXT_STRING)
    return [
        factory.create_attribute(enums.AttributeType.NAME, text),
        factory.create_attribute(enums.AttributeType.OBJECT_TYPE, kind),
    ]


with ProxyKmipClient(
    hostname=host, port=int(port), ca=ca, cert=certificate, key=key, config_file="/dev/null"
) as client:
    der = leaf.public_bytes(serialization.Encoding.DER)
    kept = objects.X509Certificate(der, [enums.CryptographicUsageMask.VERIFY], name % "certificate")
    said["certificate"] = client.register(kept)
    der = secret.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    kept = objects.PrivateKey(
        enums.CryptographicAlgorithm.RSA,
        secret.key_size,
        der,
        enums.KeyFormatType.PKCS_8,
        [enums.CryptographicUsageMask.SIGN, enums.CryptographicUsageMask.DECRYPT],
        name % "key",
    )
    said["key"] = client.register(kept)
    client.activate(said["key"])
    said["keys"] = client.locate(
        attributes=named(name % "key", enums.ObjectType.PRIVATE_KEY)
    )
    said["certificates"] = client.locate(
        attributes=named(name % "certificate", enums.ObjectType.CERTIFICATE)
    )
    _, attributes = client.get_attributes(said["key"])
    said["attributes"] = {
        attribute.attribute_name.value: str(attribute.attribute_value) for attribute in attributes
    }
    said["same"] = client.get(said["certificate"]).value == leaf.public_bytes(
        serialization.Encoding.DER
    )
    signature = client.sign(
        b"a message",
        said["key"],
        {
            "cryptographic_algorithm": enums.CryptographicAlgorithm.RSA,
            "hashing_algorithm": enums.HashingAlgorithm.SHA_256,
            "padding_method": enums.PaddingMethod.PKCS1v15,
        },
    )
    said["signature"] = signature.hex()
    try:
        client.get(said["key"])
        said["get"] = "done"
    except Exception as error:
        said["get"] = str(error)
    client.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, said["key"])
    client.destroy(said["key"])
    said["left"] = client.locate(
        attributes=named(name % "key", enums.ObjectType.PRIVATE_KEY)
    )
print(json.dumps(said))
