"""Recipe of the bundled two-photon vessel model: synthetic volumes, network, training, evaluation."""
