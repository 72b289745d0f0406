"""model.eval() is missing before validation."""

from _program import main, validate_in_train_mode

if __name__ == "__main__":
    main(validation=validate_in_train_mode)
