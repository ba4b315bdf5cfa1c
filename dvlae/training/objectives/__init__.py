"""What trainings minimise: the bound with the error of the signal decoder, and the errors of direct denoisers."""
