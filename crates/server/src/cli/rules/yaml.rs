//! JSON as YAML for people: a key or element per line, text without quotes where that is safe.

use serde_json::Value;

/// The lines of a value.
pub(super) fn block(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

/// Writes a value whose first line is already indented.
fn write(value: &Value, indent: usize, text: &mut String) {
    let pad = |text: &mut String, at: usize| {
        if at > 0 {
            text.push_str(&" ".repeat(indent));
        }
    };
    match value {
        Value::Object(keys) if !keys.is_empty() => {
            for (at, (key, value)) in keys.iter().enumerate() {
                pad(text, at);
                text.push_str(&scalar(&Value::String(key.clone())));
                text.push(':');
                if is_block(value) {
                    text.push('\n');
                    text.push_str(&" ".repeat(indent + 2));
                } else {
                    text.push(' ');
                }
                write(value, indent + 2, text);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (at, value) in list.iter().enumerate() {
                pad(text, at);
                text.push_str("- ");
                write(value, indent + 2, text);
            }
        }
        other => {
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(keys) => !keys.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

/// JSON is YAML, so quotes are never wrong.
fn scalar(value: &Value) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_plain = |text: &str| {
        let starts = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_number = text.parse::<f64>().is_ok() || text.starts_with("0x");
        let is_word = WORDS.contains(&text.to_ascii_lowercase().as_str());
        let is_safe =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '(' | ')');
        starts && !is_number && !is_word && text.chars().all(is_safe)
    };
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use highwater_aggregation::AggregateRule;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_reads_back_as_itself() {
        let rule = json!({
            "name": "n", "source": "cpu: 1", "interval": "1h", "group_by": ["host", "*"],
            "where": "usage > 5 # always\nand true",
            "aggregations": [
                {"field": "usage", "function": ["mean", "approx_percentile(0.99)"]},
                {"function": ["count"], "as": "1e5"},
            ],
            "refresh": {"strategy": "periodic", "every": "10s"}, "limit": 3, "enabled": false,
        });
        let rule: AggregateRule = serde_json::from_value(rule).unwrap();
        let text = block(&serde_json::to_value(&rule).unwrap());
        assert!(text.contains("interval: 1h\n") && text.contains("\n  every: 10s\n"), "{text}");
        assert_eq!(serde_saphyr::from_str::<AggregateRule>(&text).unwrap(), rule, "{text}");
    }
}
