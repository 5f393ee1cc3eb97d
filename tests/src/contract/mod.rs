//! What every adapter of a port has to keep, as test cases over the port.
//!
//! [`store_contract!`](crate::store_contract) and [`queue_contract!`](crate::queue_contract) make a module with one test
//! per case, so that a failure names the adapter and the case.

pub mod queue;
pub mod store;

/// One test per case, all of one adapter, in a module of its own. The attributes stand on every test.
#[macro_export]
macro_rules! contract_cases {
    ($port:ident, $adapter:ident, $attributes:tt, $make:expr, [$($case:ident)*]) => {
        mod $adapter {
            use super::*;
            $($crate::contract_case!($port, $attributes, $make, $case);)*
        }
    };
}

/// One test.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_case {
    ($port:ident, [$($attribute:meta),*], $make:expr, $case:ident) => {
        #[test]
        $(#[$attribute])*
        fn $case() {
            // Case by case: paused time wants one thread, races want several.
            $crate::contract::$port::runtime().block_on(async { $crate::contract::$port::$case($make.await).await });
        }
    };
}
