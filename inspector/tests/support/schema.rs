//! A check of JSON against the part of JSON Schema that the schemas in `docs/schema` use. Stricter in one point: a field
//! that the schema does not name is an error.

use std::path::Path;

use serde_json::Value;

/// Asserts that an answer is what `docs/schema/NAME.json` says.
pub(crate) fn assert_valid(name: &str, answer: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schema/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let schema: Value = serde_json::from_str(&text).unwrap();
    check(&schema, &schema, answer, "$").unwrap_or_else(|e| panic!("{name}: {e}\n{answer:#}"));
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = reference.strip_prefix('#').and_then(|p| root.pointer(p));
        return check(root, target.ok_or_else(|| format!("no {reference}"))?, value, at);
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let errors: Vec<_> = choices.iter().map(|c| check(root, c, value, at)).collect();
        return if errors.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{errors:?}")) };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(t) => vec![t],
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("{at}: the schema has no type")),
    };
    let fits = |t: &str| match t {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    if let Some(only) = schema.get("const").filter(|&only| only != value) {
        return Err(format!("{at}: {value} is not {only}"));
    }
    if !types.iter().any(|t| fits(t)) {
        return Err(format!("{at}: {value} is not one of {types:?}"));
    }
    if let Some(number) = value.as_f64() {
        for (key, ok) in [
            ("minimum", schema["minimum"].as_f64().is_none_or(|m| number >= m)),
            ("maximum", schema["maximum"].as_f64().is_none_or(|m| number <= m)),
        ] {
            if !ok {
                return Err(format!("{at}: {number} breaks the {key}"));
            }
        }
    }
    if let Some(object) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(required) {
                return Err(format!("{at}: no {required}"));
            }
        }
        for (key, value) in object {
            let property =
                schema["properties"].get(key).ok_or_else(|| format!("{at}: unknown field {key}"))?;
            check(root, property, value, &format!("{at}.{key}"))?;
        }
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        check(root, &schema["items"], item, &format!("{at}[{i}]"))?;
    }
    Ok(())
}
