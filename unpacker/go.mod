module paddock/unpacker

go 1.19
