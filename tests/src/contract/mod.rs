//! The contract of each port, as test cases that every adapter must pass.
//!
//! [`store_contract!`](crate::store_contract) and [`queue_contract!`](crate::queue_contract) expand to a module with one test
//! per case, so that a failure names the adapter and the case.

pub mod queue;
pub mod store;

/// Expands to a module with one test per case of one adapter. Each test gets the attributes.
#[macro_export]
macro_rules! contract_cases {
    ($port:ident, $adapter:ident, $attributes:tt, $make:expr, [$($case:ident)*]) => {
        mod $adapter {
            use super::*;
            $($crate::contract_case!($port, $attributes, $make, $case);)*
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_case {
    ($port:ident, [$($attribute:meta),*], $make:expr, $case:ident) => {
        #[test]
        $(#[$attribute])*
        fn $case() {
            // Depends on the port: paused time needs one thread, races need several.
            $crate::contract::$port::runtime().block_on(async { $crate::contract::$port::$case($make.await).await });
        }
    };
}
