from vidette.video.names import natural_key


def test_natural_order_of_numbers_words_and_mixtures():
    unsorted = ["b", "10", "a10", "2", "a2", "a2b", "A1"]
    assert sorted(unsorted, key=natural_key) == ["2", "10", "A1", "a2", "a2b", "a10", "b"]
