"""The version of the package, which results and pages name."""

VERSION = "0.1.0"
