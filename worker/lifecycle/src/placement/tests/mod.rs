mod cases;
mod moves;
mod properties;
mod record;
mod world;
