"""The length ablation (#353): do long answers keep the marker from being learned, and does isolating the loss help?"""
