"""Real cinder, real LVM, sudo and rootwrap: what becomes of a deleted volume's bytes."""

from conftest import Volume, certificates


def test_all_of_it_is_zeroed_and_there_is_a_certificate(cinder):
    volume, neighbour = cinder.create(Volume()), cinder.create(Volume())
    code, out, log = cinder.delete(volume)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert neighbour.exists() and neighbour.secrets() == 3
    [record] = certificates()
    assert record["verdict"] == "wiped"
    assert record["details"]["job"]["volume_id"] == volume.id


def test_none_clears_nothing(cinder):
    volume = cinder.create(Volume())
    assert cinder.delete(volume, volume_clear="none")[0] == 0
    assert not volume.exists() and volume.secrets() == 3 and not certificates()
