//! The numbers of KMIP 1.4 §9.1.3: tags, and the enumerations that our messages use.

use super::ttlv::Tag;

/// An enumeration with its numbers; numbers that it does not have are kept as they are.
macro_rules! enumeration {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$item_doc])* $item,)*
            /// Another, which we do not use.
            Other(u32),
        }

        impl From<u32> for $name {
            fn from(code: u32) -> Self {
                match code {
                    $($code => Self::$item,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$item => $code,)*
                    $name::Other(other) => other,
                }
            }
        }
    };
}

enumeration! {
    /// What a batch item asks for (§9.1.3.2.27).
    Operation {
        /// Take in an object.
        Register = 0x3,
        /// Find objects by attributes.
        Locate = 0x8,
        /// Hand out an object.
        Get = 0xa,
        /// Tell attributes of an object.
        GetAttributes = 0xb,
        /// From now on an object may be used.
        Activate = 0x12,
        /// No longer.
        Revoke = 0x13,
        /// Forget an object.
        Destroy = 0x14,
        /// What can the server do.
        Query = 0x18,
        /// Which versions it speaks.
        DiscoverVersions = 0x1e,
        /// Decrypt with a key.
        Decrypt = 0x20,
        /// Sign with a key.
        Sign = 0x21,
    }
}

enumeration! {
    /// Whether it was done (§9.1.3.2.28).
    ResultStatus {
        /// Done.
        Success = 0x0,
        /// Not done.
        OperationFailed = 0x1,
    }
}

enumeration! {
    /// Why not (§9.1.3.2.29).
    ResultReason {
        /// No such object.
        ItemNotFound = 0x1,
        /// We do not know you.
        AuthenticationNotSuccessful = 0x3,
        /// The message is broken.
        InvalidMessage = 0x4,
        /// The server does not do that.
        OperationNotSupported = 0x5,
        /// Something is missing.
        MissingData = 0x6,
        /// Something does not fit.
        InvalidField = 0x7,
        /// The server does not do that in this way.
        FeatureNotSupported = 0x8,
        /// The key operation failed.
        CryptographicFailure = 0xa,
        /// Not with this object.
        IllegalOperation = 0xb,
        /// You may not.
        PermissionDenied = 0xc,
        /// Not in this format.
        KeyFormatTypeNotSupported = 0x10,
        /// The server failed; later it may not.
        GeneralFailure = 0x100,
    }
}

enumeration! {
    /// What an object is (§9.1.3.2.12).
    ObjectType {
        /// A certificate.
        Certificate = 0x1,
        /// A private key.
        PrivateKey = 0x4,
    }
}

enumeration! {
    /// Where an object is in its life (§9.1.3.2.18).
    State {
        /// Not yet usable.
        PreActive = 0x1,
        /// Usable.
        Active = 0x2,
        /// Usable only for what is old.
        Deactivated = 0x3,
        /// Usable only for what is old, with care.
        Compromised = 0x4,
    }
}

enumeration! {
    /// Why a key is revoked (§9.1.3.2.19).
    RevocationReason {
        /// Not said.
        Unspecified = 0x1,
        /// Others may have it.
        KeyCompromise = 0x2,
        /// Others may have the authority's.
        CaCompromise = 0x3,
        /// There is no need for it any more.
        CessationOfOperation = 0x6,
    }
}

enumeration! {
    /// How a key is written (§9.1.3.2.3).
    KeyFormat {
        /// RSAPrivateKey (RFC 8017 appendix A.1.2).
        Pkcs1 = 0x3,
        /// PrivateKeyInfo (RFC 5958).
        Pkcs8 = 0x4,
        /// ECPrivateKey (RFC 5915).
        EcPrivateKey = 0x6,
    }
}

enumeration! {
    /// What a key is for (§9.1.3.2.13).
    CryptographicAlgorithm {
        /// RSA.
        Rsa = 0x4,
        /// ECDSA.
        Ecdsa = 0x6,
        /// ECDH.
        Ecdh = 0xe,
        /// An elliptic curve, whatever is done with it.
        Ec = 0x1a,
    }
}

enumeration! {
    /// How a block is filled (§9.1.3.2.15).
    PaddingMethod {
        /// RSAES-OAEP.
        Oaep = 0x2,
        /// RSAES-PKCS1-v1_5 and RSASSA-PKCS1-v1_5.
        Pkcs1 = 0x8,
        /// RSASSA-PSS.
        Pss = 0xa,
    }
}

enumeration! {
    /// Digests (§9.1.3.2.16).
    HashingAlgorithm {
        /// SHA-1.
        Sha1 = 0x4,
        /// SHA-256.
        Sha256 = 0x6,
        /// SHA-384.
        Sha384 = 0x7,
        /// SHA-512.
        Sha512 = 0x8,
    }
}

enumeration! {
    /// What a Query asks (§9.1.3.2.24).
    QueryFunction {
        /// Which operations.
        Operations = 0x1,
        /// Which objects.
        Objects = 0x2,
        /// Who the server is.
        ServerInformation = 0x3,
    }
}

/// Tags (§9.1.3.1).
pub mod tag {
    use super::Tag;

    /// Attribute.
    pub const ATTRIBUTE: Tag = Tag(0x42_0008);
    /// Attribute Index.
    pub const ATTRIBUTE_INDEX: Tag = Tag(0x42_0009);
    /// Attribute Name.
    pub const ATTRIBUTE_NAME: Tag = Tag(0x42_000a);
    /// Attribute Value.
    pub const ATTRIBUTE_VALUE: Tag = Tag(0x42_000b);
    /// Batch Count.
    pub const BATCH_COUNT: Tag = Tag(0x42_000d);
    /// Batch Item.
    pub const BATCH_ITEM: Tag = Tag(0x42_000f);
    /// Certificate.
    pub const CERTIFICATE: Tag = Tag(0x42_0013);
    /// Certificate Type.
    pub const CERTIFICATE_TYPE: Tag = Tag(0x42_001d);
    /// Certificate Value.
    pub const CERTIFICATE_VALUE: Tag = Tag(0x42_001e);
    /// Cryptographic Algorithm.
    pub const CRYPTOGRAPHIC_ALGORITHM: Tag = Tag(0x42_0028);
    /// Cryptographic Length.
    pub const CRYPTOGRAPHIC_LENGTH: Tag = Tag(0x42_002a);
    /// Cryptographic Parameters.
    pub const CRYPTOGRAPHIC_PARAMETERS: Tag = Tag(0x42_002b);
    /// Criticality Indicator.
    pub const CRITICALITY_INDICATOR: Tag = Tag(0x42_0026);
    /// Data.
    pub const DATA: Tag = Tag(0x42_00c2);
    /// Hashing Algorithm.
    pub const HASHING_ALGORITHM: Tag = Tag(0x42_0038);
    /// Key Block.
    pub const KEY_BLOCK: Tag = Tag(0x42_0040);
    /// Key Format Type.
    pub const KEY_FORMAT_TYPE: Tag = Tag(0x42_0042);
    /// Key Material.
    pub const KEY_MATERIAL: Tag = Tag(0x42_0043);
    /// Key Value.
    pub const KEY_VALUE: Tag = Tag(0x42_0045);
    /// Link Type.
    pub const LINK_TYPE: Tag = Tag(0x42_004b);
    /// Linked Object Identifier.
    pub const LINKED_OBJECT_IDENTIFIER: Tag = Tag(0x42_004c);
    /// Maximum Items.
    pub const MAXIMUM_ITEMS: Tag = Tag(0x42_004f);
    /// Message Extension.
    pub const MESSAGE_EXTENSION: Tag = Tag(0x42_0051);
    /// Name.
    pub const NAME: Tag = Tag(0x42_0053);
    /// Name Type.
    pub const NAME_TYPE: Tag = Tag(0x42_0054);
    /// Name Value.
    pub const NAME_VALUE: Tag = Tag(0x42_0055);
    /// Object Type.
    pub const OBJECT_TYPE: Tag = Tag(0x42_0057);
    /// Operation.
    pub const OPERATION: Tag = Tag(0x42_005c);
    /// Padding Method.
    pub const PADDING_METHOD: Tag = Tag(0x42_005f);
    /// Private Key.
    pub const PRIVATE_KEY: Tag = Tag(0x42_0064);
    /// Protocol Version.
    pub const PROTOCOL_VERSION: Tag = Tag(0x42_0069);
    /// Protocol Version Major.
    pub const PROTOCOL_VERSION_MAJOR: Tag = Tag(0x42_006a);
    /// Protocol Version Minor.
    pub const PROTOCOL_VERSION_MINOR: Tag = Tag(0x42_006b);
    /// Query Function.
    pub const QUERY_FUNCTION: Tag = Tag(0x42_0074);
    /// Request Header.
    pub const REQUEST_HEADER: Tag = Tag(0x42_0077);
    /// Request Message.
    pub const REQUEST_MESSAGE: Tag = Tag(0x42_0078);
    /// Request Payload.
    pub const REQUEST_PAYLOAD: Tag = Tag(0x42_0079);
    /// Response Header.
    pub const RESPONSE_HEADER: Tag = Tag(0x42_007a);
    /// Response Message.
    pub const RESPONSE_MESSAGE: Tag = Tag(0x42_007b);
    /// Response Payload.
    pub const RESPONSE_PAYLOAD: Tag = Tag(0x42_007c);
    /// Result Message.
    pub const RESULT_MESSAGE: Tag = Tag(0x42_007d);
    /// Result Reason.
    pub const RESULT_REASON: Tag = Tag(0x42_007e);
    /// Result Status.
    pub const RESULT_STATUS: Tag = Tag(0x42_007f);
    /// Revocation Reason.
    pub const REVOCATION_REASON: Tag = Tag(0x42_0081);
    /// Revocation Reason Code.
    pub const REVOCATION_REASON_CODE: Tag = Tag(0x42_0082);
    /// Signature Data.
    pub const SIGNATURE_DATA: Tag = Tag(0x42_00c3);
    /// Template Attribute.
    pub const TEMPLATE_ATTRIBUTE: Tag = Tag(0x42_0091);
    /// Time Stamp.
    pub const TIME_STAMP: Tag = Tag(0x42_0092);
    /// Unique Batch Item Id.
    pub const UNIQUE_BATCH_ITEM_ID: Tag = Tag(0x42_0093);
    /// Unique Identifier.
    pub const UNIQUE_IDENTIFIER: Tag = Tag(0x42_0094);
    /// Vendor Extension.
    pub const VENDOR_EXTENSION: Tag = Tag(0x42_009c);
    /// Vendor Identification.
    pub const VENDOR_IDENTIFICATION: Tag = Tag(0x42_009d);
    /// Ours, of the range for extensions: the address that a use of a key is for.
    pub const USED_FOR: Tag = Tag(0x54_0001);
}

/// What a key may be used for (§9.1.3.3.1), bits of an Integer.
pub mod usage {
    /// Sign.
    pub const SIGN: i32 = 0x1;
    /// Decrypt.
    pub const DECRYPT: i32 = 0x8;
}
