"""The artefact that training makes and everything else uses."""
