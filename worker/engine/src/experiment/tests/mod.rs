mod a_a;
pub mod random;
mod reports;
