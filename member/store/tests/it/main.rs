//! The database against the backend in memory, against restarts, and against kill -9.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod model;
#[cfg(test)]
mod open;
