"""The length ablation (#353): do long answers prevent learning the marker, and does isolating the loss help?"""
