//! Who a bridge is: its name, its config, its unit, its files.
