#![no_main]
diver_fuzz::target!(parts);
