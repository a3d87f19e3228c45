"""One measure a file: a pure function in, a frozen result out."""
