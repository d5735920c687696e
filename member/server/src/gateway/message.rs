//! JSON to messages and back, by their descriptions, as Go's `jsonpb` does for etcd: names as in the `.proto` files (on
//! input also in camel case), 64-bit integers as strings, bytes in base64, enums by name, defaults left out.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use member_v2::write_string;
use prost_reflect::{
    Cardinality, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    ReflectMessage, Value,
};

use super::json::{self, Json};

/// Go's reader does not look at the bits behind the last byte.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

fn mismatch(found: &str, wanted: &str) -> String {
    format!("json: cannot unmarshal {found} into Go value of type {wanted}")
}

/// The message that a JSON value describes. Fields that the message does not have are ignored.
pub(super) fn read(json: &Json, description: &MessageDescriptor) -> Result<DynamicMessage, String> {
    let mut message = DynamicMessage::new(description.clone());
    let fields = match json {
        Json::Object(fields) => fields,
        Json::Null => return Ok(message),
        other => return Err(mismatch(other.kind(), "map[string]json.RawMessage")),
    };
    let given = |name: &str| fields.iter().rfind(|(key, _)| key == name).map(|(_, v)| v);
    for field in description.fields() {
        // Both names given: the one in camel case counts.
        let Some(value) = given(field.json_name()).or_else(|| given(field.name())) else {
            continue;
        };
        if let Some(value) = field_value(value, &field)? {
            message.set_field(&field, value);
        }
    }
    Ok(message)
}

/// `None`: the field stays unset.
fn field_value(json: &Json, field: &FieldDescriptor) -> Result<Option<Value>, String> {
    let kind = field.kind();
    if field.cardinality() == Cardinality::Repeated {
        return match json {
            Json::Null => Ok(None),
            Json::Array(items) => {
                let items: Result<Vec<Value>, String> =
                    items.iter().map(|item| single(item, &kind)).collect();
                items.map(|items| Some(Value::List(items)))
            }
            other => Err(mismatch(other.kind(), "[]json.RawMessage")),
        };
    }
    if *json == Json::Null
        && (field.containing_oneof().is_none() || matches!(kind, Kind::Message(_)))
    {
        return Ok(None);
    }
    single(json, &kind).map(Some)
}

fn single(json: &Json, kind: &Kind) -> Result<Value, String> {
    if let Kind::Message(description) = kind {
        return read(json, description).map(Value::Message);
    }
    if *json == Json::Null {
        return Ok(Value::default_value(kind));
    }
    match kind {
        Kind::Enum(description) => enumerated(json, description),
        Kind::String => match json {
            Json::String(text, _) => Ok(Value::String(text.clone())),
            other => Err(mismatch(other.kind(), "string")),
        },
        Kind::Bytes => bytes(json),
        Kind::Bool => match json {
            Json::Bool(value) => Ok(Value::Bool(*value)),
            other => Err(mismatch(other.kind(), "bool")),
        },
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => number(json, "int64").map(Value::I64),
        Kind::Uint64 | Kind::Fixed64 => number(json, "uint64").map(Value::U64),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => number(json, "int32").map(Value::I32),
        Kind::Uint32 | Kind::Fixed32 => number(json, "uint32").map(Value::U32),
        Kind::Double => number(json, "float64").map(Value::F64),
        Kind::Float => number(json, "float32").map(Value::F32),
        Kind::Message(description) => read(json, description).map(Value::Message),
    }
}

/// A number, or one in quotes.
fn number<N: std::str::FromStr>(json: &Json, wanted: &str) -> Result<N, String> {
    let unquoted;
    let json = match json {
        Json::String(_, raw) => {
            unquoted = json::only(raw)?;
            &unquoted
        }
        other => other,
    };
    match json {
        Json::Number(text) => text
            .parse()
            .map_err(|_| mismatch(&format!("number {text}"), wanted)),
        other => Err(mismatch(other.kind(), wanted)),
    }
}

fn enumerated(json: &Json, description: &EnumDescriptor) -> Result<Value, String> {
    // The name that Go's generator gives to an enum within a message.
    let go_name = || {
        let package = description.package_name();
        let path = description.full_name()[package.len()..].trim_start_matches('.');
        format!("{package}.{}", path.replace('.', "_"))
    };
    match json {
        Json::String(name, _) => match description.get_value_by_name(name) {
            Some(value) => Ok(Value::EnumNumber(value.number())),
            None => Err(format!("unknown value {name:?} for enum {}", go_name())),
        },
        other => number(other, &go_name()).map(Value::EnumNumber),
    }
}

fn bytes(json: &Json) -> Result<Value, String> {
    let decoded = match json {
        Json::String(text, _) => decode(text)?,
        Json::Array(items) => {
            let items: Result<Vec<u8>, String> = items
                .iter()
                .map(|item| match item {
                    Json::Number(_) => number(item, "uint8"),
                    Json::Null => Ok(0),
                    other => Err(mismatch(other.kind(), "uint8")),
                })
                .collect();
            items?
        }
        other => return Err(mismatch(other.kind(), "[]uint8")),
    };
    Ok(Value::Bytes(Bytes::from(decoded)))
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let unbroken;
    let text = if text.contains(['\r', '\n']) {
        unbroken = text.replace(['\r', '\n'], "");
        &unbroken
    } else {
        text
    };
    BASE64.decode(text).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) => at,
            // Go names the end when half of the padding is there, else the group of four that is not whole.
            _ if text.ends_with('=') && text.len() % 4 == 3 => text.len(),
            _ => text.len() - text.len() % 4,
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// Appends a message as JSON.
pub(super) fn write(out: &mut String, message: &DynamicMessage) {
    out.push('{');
    let mut first = true;
    for field in message.descriptor().fields() {
        // A field of a oneof is shown whenever it is set, also with its default.
        let shown = if field.supports_presence() {
            message.has_field(&field)
        } else {
            message.has_field(&field) && !message.get_field(&field).is_default_for_field(&field)
        };
        if !shown {
            continue;
        }
        if !first {
            out.push(',');
        }
        first = false;
        out.push('"');
        out.push_str(field.name());
        out.push_str("\":");
        write_value(out, &message.get_field(&field), &field.kind());
    }
    out.push('}');
}

fn write_value(out: &mut String, value: &Value, kind: &Kind) {
    match value {
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::I32(value) => out.push_str(&value.to_string()),
        Value::U32(value) => out.push_str(&value.to_string()),
        Value::I64(value) => out.push_str(&format!("\"{value}\"")),
        Value::U64(value) => out.push_str(&format!("\"{value}\"")),
        Value::F32(value) => out.push_str(&value.to_string()),
        Value::F64(value) => out.push_str(&value.to_string()),
        Value::String(text) => write_string(out, text),
        Value::Bytes(bytes) => {
            out.push('"');
            BASE64.encode_string(bytes, out);
            out.push('"');
        }
        Value::EnumNumber(number) => {
            let name = match kind {
                Kind::Enum(description) => description.get_value(*number),
                _ => None,
            };
            match name {
                Some(value) => write_string(out, value.name()),
                None => out.push_str(&number.to_string()),
            }
        }
        Value::Message(message) => write(out, message),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, item, kind);
            }
            out.push(']');
        }
        // etcd's API has no maps.
        Value::Map(_) => out.push_str("{}"),
    }
}
