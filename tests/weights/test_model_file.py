

def test_a_changed_byte_anywhere_in_the_file_is_found(trained, tmp_path):
    content = (trained / "model.safetensors").read_bytes()
    path, header = tmp_path / "model.safetensors", 8 + int.from_bytes(content[:8], "little")
    for position in (header // 3, header // 2, header + 5, (header + len(content)) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"model\.safetensors: .*(damaged|header|whole|metadata)"):
            read_model_file(path)
    path.write_bytes(content)
    read_model_file(path)
