"""What a program's batches, data sets, models and loaders are, by looking at them. Changes nothing, keeps nothing going."""
