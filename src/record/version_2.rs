//! Conversion of version 2 records to the current form, so that old signed certificates stay verifiable.
//!
//! Version 2 had one field for operation and scope (`act`), and did not record what a step covered: that is
//! known only for a step that did its whole area.

use serde_json::{Map, Value, json};

/// Rewrites the parts whose form or name has changed. Unknown parts are left for the parser to refuse.
pub fn upgrade(record: &mut Value) {
    let area = record.pointer("/job/plan/area").cloned().unwrap_or_default();
    let area_bytes = length(&area);
    for step in elements(record, "/job/plan/steps") {
        *step = step_of(step);
    }
    for report in elements(record, "/job/steps").filter_map(Value::as_object_mut) {
        let step = report.remove("act").map_or(Value::Null, |act| step_of(&act));
        let bytes = bytes_visited(report);
        let all = bytes.is_some() && bytes == area_bytes && step["scope"]["kind"] == "area";
        let extents = if all { json!([area]) } else { json!([]) };
        let more = !all && bytes != Some(0);
        report.insert("covered".into(), json!({ "extents": extents, "bytes": bytes, "more": more }));
        report.insert("failed_bytes".into(), json!(0));
        report.insert("step".into(), step);
    }
    if let Some(job) = record.get_mut("job") {
        rename(job, "before", "survey");
    }
    elements(record, "/job/resumed").for_each(|resumption| rename(resumption, "believed", "trusted"));
    elements(record, "/findings/forced").for_each(|refusal| rename(refusal, "way_out", "remedy"));
    if let Some(sample) = record.pointer_mut("/job/verification/sample") {
        *sample = sample_of(sample);
    }
}

fn elements<'a>(record: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    record.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(fields) = object.as_object_mut()
        && let Some(value) = fields.remove(from)
    {
        fields.insert(to.into(), value);
    }
}

fn length(extent: &Value) -> Option<u64> {
    extent["end"].as_u64()?.checked_sub(extent["start"].as_u64()?)
}

/// What it wrote or read, and what it could not.
fn bytes_visited(report: &Map<String, Value>) -> Option<u64> {
    let unusable = report.get("unusable")?.as_array()?.iter().map(length);
    unusable.chain([report.get("bytes")?.as_u64()]).try_fold(0u64, |sum, each| sum.checked_add(each?))
}

fn step_of(act: &Value) -> Value {
    let pattern = |name: &str| json!(act[name]);
    let scope = |sample: &Value| match sample_of(sample) {
        Value::Null => json!({ "kind": "area" }),
        sample => json!({ "kind": "sample", "sample": sample }),
    };
    let area = json!({ "kind": "area" });
    let write = json!({ "kind": "write", "pattern": pattern("pattern") });
    let compare = json!({ "kind": "compare", "pattern": pattern("expect") });
    let (operation, scope) = match act["act"].as_str() {
        Some("write") => (write, area),
        Some("write_part") => (write, json!({ "kind": "ranges", "ranges": act["part"] })),
        Some("write_found") => (write, json!({ "kind": "non_zero" })),
        Some("zero") => (json!({ "kind": "write_zeroes" }), area),
        Some("discard") => (json!({ "kind": "discard" }), area),
        Some("find") => (json!({ "kind": "find_non_zero" }), area),
        Some("survey") => (json!({ "kind": "fingerprint" }), scope(&act["sample"])),
        Some("check") => (compare, scope(&act["sample"])),
        Some("replay") => {
            let mut check = act["check"].clone();
            if let Some(sample) = check.get_mut("sample") {
                *sample = sample_of(sample);
            }
            (compare, json!({ "kind": "recorded", "check": check }))
        }
        _ => return Value::Null,
    };
    json!({ "operation": operation, "scope": scope })
}

/// `{"kind":"full"}` is now `None`.
fn sample_of(sample: &Value) -> Value {
    match sample["kind"].as_str() {
        Some("stratified") => {
            let mut sample = sample.clone();
            sample.as_object_mut().map(|sample| sample.remove("kind"));
            sample
        }
        Some("full") => Value::Null,
        _ => sample.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_fields_keep_their_values() {
        let mut record = json!({
            "findings": { "forced": [{ "way_out": "umount" }] },
            "job": { "before": { "read_bytes": 512 }, "resumed": [{ "believed": true }] },
        });
        upgrade(&mut record);
        let now = json!({
            "findings": { "forced": [{ "remedy": "umount" }] },
            "job": { "survey": { "read_bytes": 512 }, "resumed": [{ "trusted": true }] },
        });
        assert_eq!(record, now);
    }
}
