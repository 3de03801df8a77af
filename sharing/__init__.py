"""From a dataset to other people, trainers and datasets: publications, takedowns, exports, subsets, merges, tags."""
