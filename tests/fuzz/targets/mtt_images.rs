#![no_main]
diver_fuzz::target!(mtt_images);
