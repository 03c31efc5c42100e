"""Many runs of one configuration: cross-validation, and the search for better values of its fields."""
