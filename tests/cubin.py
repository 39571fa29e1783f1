"""The instructions of a kernel, from what nvcc -cubin makes: an ELF file with a section .text.NAME for each kernel.

    for kernel in cubin.kernels("matvec.cubin"):
        print(kernel.name, len(kernel.instructions), kernel.count("LDG.128"))

From sm_75 on an instruction has 16 bytes. Its lowest 9 bits say what it does, the next 3 where its operands are; bits
73 to 75 of loads and stores are their size. Only instructions that somebody asks for have a name here; the numbers were
read off code whose source was known, and kernels() stops where they do not fit."""

import collections
import struct

MNEMONICS = {
    0x03c: "HMMA",
    0x14d: "EXIT",
    0x181: "LDG",
    0x183: "LDL",
    0x184: "LDS",
    0x186: "STG",
    0x187: "STL",
    0x1ae: "LDGSTS",
}
WITH_SIZE = {"LDG", "LDL", "LDS", "STG", "STL", "LDGSTS"}
SIZES = ["U8", "S8", "U16", "S16", "32", "64", "128", "?"]
INSTRUCTION_BYTES = 16
SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr


class Kernel:
    """name: mangled. instructions: "LDG.128", "HMMA" …, None for what has no name here, in the order of the code."""

    def __init__(self, name, instructions):
        self.name = name
        self.instructions = instructions
        self.counts = collections.Counter(instructions)

    def count(self, instruction):
        """Of "LDG.128", or of "LDG" in all sizes."""
        return sum(n for i, n in self.counts.items() if i and (i == instruction or i.split(".")[0] == instruction))


def sections(data):
    """(name, bytes) of each section of an ELF file of 64 bits."""
    if data[:5] != b"\x7fELF\x02":
        raise ValueError("not an ELF file of 64 bits")
    table, = struct.unpack_from("<Q", data, 40)
    entry_bytes, n, names = struct.unpack_from("<HHH", data, 58)
    headers = [SECTION.unpack_from(data, table + i * entry_bytes) for i in range(n)]
    names_begin = headers[names][4]
    for header in headers:
        begin = names_begin + header[0]
        name = data[begin:data.index(b"\0", begin)].decode()
        yield name, data[header[4]:header[4] + header[5]]


def decode(low, high):
    mnemonic = MNEMONICS.get(low & 0x1ff)
    return f"{mnemonic}.{SIZES[high >> 9 & 7]}" if mnemonic in WITH_SIZE else mnemonic


def kernels(path):
    with open(path, "rb") as file:
        data = file.read()
    for name, code in sections(data):
        if not name.startswith(".text."):
            continue
        pairs = struct.iter_unpack("<QQ", code[:len(code) // INSTRUCTION_BYTES * INSTRUCTION_BYTES])
        kernel = Kernel(name[len(".text."):], [decode(low, high) for low, high in pairs])
        if kernel.count("EXIT") == 0:
            raise ValueError(f"{path}: {kernel.name} has no EXIT: its instructions are not those of cubin.py")
        yield kernel
