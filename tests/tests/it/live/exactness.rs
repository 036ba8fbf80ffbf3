//! A subscription runs again exactly when something was written that changes what it read.
