//! Being written (founder of the field-bug tests): please leave this file alone.
