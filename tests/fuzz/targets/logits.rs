#![no_main]
diver_fuzz::target!(logits);
