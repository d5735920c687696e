//! Checks keys and types of a parsed file against the JSON Schema, with positions, all problems at once.
//!
//! serde stops at the first problem and knows no "did you mean"; the schema is derived from the same structs, so the two agree.

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::invalid::Problem;
use super::spans::Path;
use super::suggest::nearest;

/// Adds a problem for each unknown or missing key and each value of a wrong type.
pub(super) fn check(table: &Spanned<DeTable<'_>>, schema: &Value, problems: &mut Vec<Problem>) {
    let checker = Checker { schema };
    checker.table(table.get_ref(), 0..0, schema, &Path::root(), problems);
}

struct Checker<'s> {
    schema: &'s Value,
}

impl<'s> Checker<'s> {
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        match schema["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'))
        {
            Some(pointer) => self.schema.pointer(pointer).unwrap_or(&Value::Null),
            None => schema,
        }
    }

    /// The forms that a value may have: alternatives laid flat, without `null`, which TOML does not have.
    fn forms(&self, schema: &'s Value) -> Vec<&'s Value> {
        let schema = self.resolve(schema);
        let Some(alternatives) = schema["anyOf"].as_array() else {
            return vec![schema];
        };
        alternatives
            .iter()
            .filter(|form| form["type"] != "null")
            .flat_map(|form| self.forms(form))
            .collect()
    }

    fn table(
        &self,
        table: &DeTable<'_>,
        place: std::ops::Range<usize>,
        schema: &'s Value,
        path: &Path,
        problems: &mut Vec<Problem>,
    ) {
        let known = schema["properties"].as_object();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let here = path.key(name);
            if let Some(property) = known.and_then(|known| known.get(name)) {
                self.value(value, property, &here, problems);
            } else if schema["additionalProperties"] == false {
                let keys: Vec<&str> = known
                    .into_iter()
                    .flat_map(|known| known.keys())
                    .map(String::as_str)
                    .collect();
                let help = match nearest(name, keys.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the keys of {} are: {}", path.table_name(), keys.join(", ")),
                };
                problems.push(
                    Problem::error(
                        key.span(),
                        format!("unknown key `{name}` in {}", path.table_name()),
                        "unknown key",
                    )
                    .help(help),
                );
            } else if schema["additionalProperties"].is_object() {
                self.value(value, &schema["additionalProperties"], &here, problems);
            }
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !table.keys().any(|key| key.get_ref() == name) {
                let what = known
                    .and_then(|known| known[name]["description"].as_str())
                    .unwrap_or_default();
                problems.push(
                    Problem::error(
                        place.clone(),
                        format!("{} has no `{name}`", path.table_name()),
                        format!("`{name}` is missing"),
                    )
                    .help(format!(
                        "add `{name} = ...`: {}",
                        what.trim_end_matches('.').to_lowercase()
                    )),
                );
            }
        }
    }

    fn value(
        &self,
        value: &Spanned<DeValue<'_>>,
        schema: &'s Value,
        path: &Path,
        problems: &mut Vec<Problem>,
    ) {
        let forms = self.forms(schema);
        let choices = choices(&forms);
        let key = path.last_key().unwrap_or_default();
        if !choices.is_empty() {
            let DeValue::String(text) = value.get_ref() else {
                return problems.push(wrong_type(
                    value,
                    key,
                    &format!("one of {}", choices.join(", ")),
                ));
            };
            if !choices.contains(&text.as_ref()) {
                let help = match nearest(text, choices.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("write one of {}", choices.join(", ")),
                };
                problems.push(
                    Problem::error(
                        value.span(),
                        format!("`{key}` cannot be {text:?}"),
                        format!("not one of {}", choices.join(", ")),
                    )
                    .help(help),
                );
            }
            return;
        }
        let Some(form) = forms.iter().find(|form| fits(value.get_ref(), form)) else {
            let mut names: Vec<&str> = forms.iter().filter_map(|form| type_name(form)).collect();
            names.dedup();
            return problems.push(wrong_type(value, key, &names.join(" or ")));
        };
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, value.span(), form, path, problems),
            DeValue::Array(array) => {
                for (index, item) in array.iter().enumerate() {
                    self.value(item, &form["items"], &path.index(index), problems);
                }
            }
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
                let in_range = number.is_some_and(|number| {
                    form["minimum"]
                        .as_f64()
                        .is_none_or(|least| number as f64 >= least)
                        && form["maximum"]
                            .as_f64()
                            .is_none_or(|most| number as f64 <= most)
                });
                if !in_range {
                    problems.push(Problem::error(
                        value.span(),
                        format!("`{key}` cannot be {}", integer.as_str()),
                        "out of range",
                    ));
                }
            }
            _ => {}
        }
    }
}

fn choices<'s>(forms: &[&'s Value]) -> Vec<&'s str> {
    forms
        .iter()
        .flat_map(|form| {
            let listed = form["enum"].as_array().into_iter().flatten();
            let described = form["oneOf"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|choice| &choice["const"]);
            listed.chain(described)
        })
        .filter_map(Value::as_str)
        .collect()
}

fn types(form: &Value) -> Vec<&str> {
    match &form["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect(),
        _ => Vec::new(),
    }
}

fn fits(value: &DeValue<'_>, form: &Value) -> bool {
    let types = types(form);
    // A form without a type takes anything.
    types.is_empty()
        || types.iter().any(|name| {
            matches!(
                (*name, value),
                ("string", DeValue::String(_))
                    | ("integer", DeValue::Integer(_))
                    | ("number", DeValue::Integer(_) | DeValue::Float(_))
                    | ("boolean", DeValue::Boolean(_))
                    | ("array", DeValue::Array(_))
                    | ("object", DeValue::Table(_))
            )
        })
}

fn type_name(form: &Value) -> Option<&'static str> {
    types(form).first().map(|name| match *name {
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a table",
    })
}

fn wrong_type(value: &Spanned<DeValue<'_>>, key: &str, expected: &str) -> Problem {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Problem::error(
        value.span(),
        format!("`{key}` must be {expected}, not {found}"),
        format!("this is {found}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::schema::json_schema;
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let table = DeTable::parse(text).unwrap();
        let mut problems = Vec::new();
        check(&table, &json_schema(), &mut problems);
        problems
            .into_iter()
            .map(|problem| {
                format!(
                    "{}|{}|{}",
                    &text[problem.span],
                    problem.message,
                    problem.help.unwrap_or_default()
                )
            })
            .collect()
    }

    #[test]
    fn a_good_file_has_no_problems() {
        let text = "name = \"a\"\n[tls]\npeer = \"mutual\"\nca = { cert = \"c\", key = \"k\" }\n[defaults]\nheartbeat-interval = 100\npre-vote = true\n[[member]]\nname = \"m\"\nclient-port = 2379\npeer-port = \"{1..2}\"\n";
        assert_eq!(messages(text), Vec::<String>::new());
    }

    #[test]
    fn unknown_keys_get_a_suggestion() {
        assert_eq!(
            messages("name = \"a\"\n[[member]]\nname = \"m\"\nadress = \"x\"\n"),
            ["adress|unknown key `adress` in [[member]]|did you mean `address`?"]
        );
        assert_eq!(
            messages("name = \"a\"\n[lints]\nquux = 1\n"),
            ["quux|unknown key `quux` in [lints]|the keys of [lints] are: allow"]
        );
    }

    #[test]
    fn wrong_types_name_both() {
        assert_eq!(
            messages("name = 3\nmember = 1\n[tls]\npeer = true\nvalidity-days = \"x\"\n"),
            [
                "1|`member` must be a list, not an integer|",
                "3|`name` must be a string, not an integer|",
                "true|`peer` must be one of off, auto, prepared, mutual, not true or false|",
                "\"x\"|`validity-days` must be an integer, not a string|",
            ]
        );
    }

    #[test]
    fn wrong_choices_get_a_suggestion() {
        assert_eq!(
            messages("name = \"a\"\ntls = { client = \"mutal\" }\n"),
            ["\"mutal\"|`client` cannot be \"mutal\"|did you mean \"mutual\"?"]
        );
        assert_eq!(
            messages("name = \"a\"\nbootstrap = { method = \"x\" }\n"),
            ["\"x\"|`method` cannot be \"x\"|write one of static, discovery, dns-srv"]
        );
    }

    #[test]
    fn missing_keys_are_named_with_their_meaning() {
        assert_eq!(
            messages("name = \"a\"\n[[member]]\nzone = \"z\"\n"),
            ["[[member]]|[[member]] has no `name`|add `name = ...`: unique name"]
        );
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        assert_eq!(
            messages("name = \"a\"\n[tls]\nvalidity-days = -1\n"),
            ["-1|`validity-days` cannot be -1|"]
        );
    }
}
