//! The log as openraft and a disk that misbehaves see it.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod found;
#[cfg(test)]
mod model;
#[cfg(test)]
mod order;
#[cfg(test)]
mod support;
