//! What goes wrong between us and a token, sorted by what helps.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use sealgate_core::keys::KeyError;

use crate::error::StoreError;

/// Why a token did not do something.
#[derive(Debug)]
pub(super) enum Fault {
    /// Token, session or login are gone, or the module says nothing that tells otherwise: to start anew may help.
    Away(String),
    /// The token does not show this key any more: so looks one that was pulled, too, until one starts anew. After that
    /// the key is gone.
    Gone(String),
    /// Token or key never do this, whatever they are given: the administrator must change something.
    Incapable(String),
    /// The token is there and does not do this with what it was given.
    Refused(String),
    /// Said already what is wrong; to start anew would not help.
    Store(StoreError),
}

impl Fault {
    /// As the key stores say it.
    pub(super) fn into_store_error(self, store: &str) -> StoreError {
        match self {
            Self::Away(why) | Self::Gone(why) | Self::Incapable(why) | Self::Refused(why) => {
                StoreError::Unavailable { store: store.to_owned(), why }
            }
            Self::Store(error) => error,
        }
    }

    /// As a key's handle says it. A refusal has no reason, because the reason is an oracle.
    pub(super) fn into_key_error(self) -> KeyError {
        match self {
            Self::Away(why) | Self::Gone(why) | Self::Incapable(why) => KeyError::Unavailable(why),
            Self::Refused(_) => KeyError::Failed,
            Self::Store(error) => KeyError::Unavailable(error.to_string()),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if is_incapable(&error) {
            return Self::Incapable(reason(&error));
        }
        let Error::Pkcs11(code, function) = error else { return Self::Refused(error.to_string()) };
        let why = format!("{function}: {}", name(code));
        match code {
            RvError::CryptokiNotInitialized
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::FunctionCanceled
            | RvError::FunctionFailed
            | RvError::GeneralError
            | RvError::HostMemory
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::SlotIdInvalid
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::UserNotLoggedIn => Self::Away(why),
            _ => Self::Refused(why),
        }
    }
}

/// Whether a handle of an object is stale, as after the object was imported anew.
pub(super) fn is_stale_handle(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid, _))
}

/// Whether a token says this of a ciphertext that it does not like as well as of its own trouble: SoftHSM answers wrong
/// padding with `CKR_GENERAL_ERROR`.
pub(super) fn is_ambiguous(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::DeviceError | RvError::FunctionFailed | RvError::GeneralError,
            Function::Decrypt | Function::DeriveKey
        )
    )
}

/// Whether a token does not have a mechanism, or not with these parameters.
pub(super) fn is_unknown_mechanism(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::ArgumentsBad
                | RvError::FunctionNotSupported
                | RvError::MechanismInvalid
                | RvError::MechanismParamInvalid,
            Function::DecryptInit
        )
    )
}

/// Whether key or token never do this, whatever the ciphertext: mail waits, and the administrator must hear of it. Never what
/// depends on a ciphertext's padding, and nothing of a parameter that the originator chose.
pub(super) fn is_incapable(error: &Error) -> bool {
    matches!(
        error,
        Error::NotSupported
            | Error::Pkcs11(
                RvError::ActionProhibited
                    | RvError::AttributeReadOnly
                    | RvError::AttributeSensitive
                    | RvError::AttributeTypeInvalid
                    | RvError::AttributeValueInvalid
                    | RvError::CurveNotSupported
                    | RvError::FunctionNotSupported
                    | RvError::FunctionRejected
                    | RvError::KeyFunctionNotPermitted
                    | RvError::KeySizeRange
                    | RvError::KeyTypeInconsistent
                    | RvError::KeyUnextractable
                    | RvError::MechanismInvalid
                    | RvError::PinExpired
                    | RvError::SessionReadOnly
                    | RvError::TemplateIncomplete
                    | RvError::TemplateInconsistent
                    | RvError::TokenWriteProtected,
                _
            )
    )
}

/// An error in a few words.
fn reason(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function}: {}", name(*code)),
        Error::NotSupported => "the token does not do this".to_owned(),
        other => other.to_string(),
    }
}

/// The code's name without the crate's long explanation.
fn name(code: RvError) -> String {
    match code {
        RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) => {
            format!("error {number:#x}")
        }
        named => format!("{named:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_token_is_told_from_a_refused_operation() {
        let fault = |code| Fault::from(Error::Pkcs11(code, Function::Sign));
        assert!(matches!(fault(RvError::DeviceRemoved), Fault::Away(_)));
        assert!(matches!(fault(RvError::SessionHandleInvalid), Fault::Away(_)));
        assert!(matches!(fault(RvError::MechanismInvalid), Fault::Incapable(_)));
        assert_eq!(fault(RvError::DataInvalid).into_key_error(), KeyError::Failed);
    }
    #[test]
    fn mail_waits_for_what_a_token_never_does_and_bad_padding_has_no_reason() {
        let said = |code, function| Fault::from(Error::Pkcs11(code, function)).into_key_error();
        for (code, function) in [
            (RvError::KeyFunctionNotPermitted, Function::DecryptInit),
            (RvError::TemplateInconsistent, Function::DeriveKey),
            (RvError::AttributeSensitive, Function::GetAttributeValue),
            (RvError::FunctionRejected, Function::Decrypt),
            (RvError::PinExpired, Function::SignInit),
            (RvError::FunctionCanceled, Function::Decrypt),
            (RvError::MechanismInvalid, Function::DeriveKey),
        ] {
            let error = said(code, function);
            assert!(matches!(error, KeyError::Unavailable(_)), "{code:?}: {error:?}");
        }
        let error = Fault::from(Error::NotSupported).into_key_error();
        assert!(matches!(error, KeyError::Unavailable(_)), "{error:?}");
        for code in [
            RvError::DataInvalid,
            RvError::DataLenRange,
            RvError::EncryptedDataInvalid,
            RvError::EncryptedDataLenRange,
            RvError::ArgumentsBad,
        ] {
            assert_eq!(said(code, Function::Decrypt), KeyError::Failed, "{code:?}");
        }
        let error = said(RvError::MechanismParamInvalid, Function::DeriveKey);
        assert_eq!(error, KeyError::Failed, "a point that is none is the originator's");
    }
}
