#![allow(unused)]

use convoke::prelude::*;

struct Messages;

impl Messages {
    #[query]
    fn list(&self, ctx: &QueryCtx) -> u32 {
        0
    }
}

fn main() {}
