#![no_main]
diver_fuzz::target!(npz);
