//! A document is parsed into `serde_json::Value` and dropped.

use std::fmt::Write;
use std::hint::black_box;

use fastrand::Rng;
use serde_json::Value;

use super::Work;

const RECORDS: u32 = 1_000;

/// Records with nested objects, arrays, escapes, numbers and strings of many lengths: about 400 KB.
#[derive(Debug)]
pub(crate) struct Json(String);

impl Json {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut text = String::from("[");
        for id in 0..RECORDS {
            let separator = if id == 0 { "" } else { "," };
            let name = word(&mut rng, 12);
            let words: Vec<String> = (0..rng.usize(1..30)).map(|_| word(&mut rng, 9)).collect();
            let tags: Vec<String> = (0..rng.usize(0..8)).map(|_| format!("\"{}\"", word(&mut rng, 14))).collect();
            write!(
                text,
                r#"{separator}{{"id":{id},"name":"{name}","score":{score},"active":{active},"text":"{body}\n","tags":[{tags}],"place":{{"coordinates":[{x},{y}],"kind":"Point","parent":null}}}}"#,
                score = rng.f64() * 1e6,
                active = rng.bool(),
                body = words.join(" "),
                tags = tags.join(","),
                x = rng.f64() * 180.0,
                y = rng.f64() * 90.0,
            )
            .expect("a string takes everything");
        }
        text.push(']');
        Self(text)
    }
}

fn word(rng: &mut Rng, longest: usize) -> String {
    (0..rng.usize(2..=longest)).map(|_| rng.lowercase()).collect()
}

impl Work for Json {
    fn run(&mut self, turns: u64) {
        for _ in 0..turns {
            let value: Value = serde_json::from_str(black_box(&self.0)).expect("the document is well formed");
            drop(black_box(value));
        }
    }
}
