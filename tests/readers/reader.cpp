// A reader of caches that was written from docs/cache-format.md alone. It prints a line a sample: the columns of the
// sample table, and XXH3-64 of the image, of the plane `person` and of the plane `ignore`, a byte a pixel.
//
//   apt-get install g++ liblmdb-dev libxxhash-dev nlohmann-json3-dev
//   c++ -std=c++17 -O2 reader.cpp -o reader -llmdb -lxxhash
//   ./reader CACHE train

#include <lmdb.h>
#include <xxhash.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using nlohmann::json;
using Bytes = std::string;

[[noreturn]] void refuse(const std::string& why) { throw std::runtime_error(why); }

Bytes read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) refuse(path.string() + " is missing");
    return {std::istreambuf_iterator<char>(file), {}};
}

template <class T>  // on a little-endian machine
T number(const Bytes& data, size_t at) {
    T value;
    std::memcpy(&value, data.data() + at, sizeof value);
    return value;
}

std::string xxh3_128(const Bytes& data) {
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits(data.data(), data.size()));
    std::string text;
    for (unsigned char byte : digest.digest) {
        char digits[3];
        std::snprintf(digits, sizeof digits, "%02x", byte);
        text += digits;
    }
    return text;
}

// JSON as Python's `json.dumps(value, sort_keys=True)`. The library sorts members and escapes as Python does, so only
// the white space between is ours.
std::string canonical(const json& value) {
    if (!value.is_structured()) return value.dump(-1, ' ', true);
    std::string text;
    for (auto& [name, member] : value.items()) {
        text += text.empty() ? "" : ", ";
        if (value.is_object()) text += json(name).dump(-1, ' ', true) + ": ";
        text += canonical(member);
    }
    return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

json read_index(const fs::path& root) {
    json document = json::parse(read_file(root / "index.json"));
    if (document.at("format_version") != 2) refuse("this format version is not known");
    if (document.at("checksum") != xxh3_128(canonical(document.at("index")))) refuse("index.json was changed");
    return document.at("index");
}

std::vector<Bytes> read_lmdb(const fs::path& path, uint32_t rows) {
    MDB_env* env;
    MDB_txn* txn;
    MDB_dbi dbi;
    if (mdb_env_create(&env) || mdb_env_open(env, path.c_str(), MDB_RDONLY | MDB_NOLOCK | MDB_NOSUBDIR, 0) ||
        mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn) || mdb_dbi_open(txn, nullptr, 0, &dbi))
        refuse("LMDB cannot open " + path.string());
    std::vector<Bytes> records;
    for (uint32_t row = 0; row < rows; row++) {
        unsigned char bytes[4] = {uint8_t(row >> 24), uint8_t(row >> 16), uint8_t(row >> 8), uint8_t(row)};
        MDB_val key{4, bytes}, value;
        if (mdb_get(txn, dbi, &key, &value)) refuse("a row is missing in " + path.string());
        records.emplace_back(static_cast<char*>(value.mv_data), value.mv_size);
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
    return records;
}

uint32_t crc32c(const Bytes& data) {
    uint32_t crc = ~0u;
    for (unsigned char byte : data) {
        crc ^= byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

// Append to each record its part in the data file of a Zarr array.
void append_chunks(std::vector<Bytes>& records, const fs::path& path, size_t size) {
    Bytes data = read_file(path);
    size_t end = records.size() * size, index = 16 * records.size();
    bool sound = data.size() == end + index + 4 && crc32c(data.substr(end, index)) == number<uint32_t>(data, end + index);
    for (size_t row = 0; sound && row < records.size(); row++) {
        sound = number<uint64_t>(data, end + 16 * row) == row * size && number<uint64_t>(data, end + 16 * row + 8) == size;
        records[row] += data.substr(row * size, size);
    }
    if (!sound) refuse(path.string() + " does not end with its index");
}

std::vector<Bytes> read_shard(const fs::path& folder, const json& spec, const json& shard) {
    fs::path path = folder / std::string(shard.at("name"));
    uintmax_t size = 0;
    if (fs::is_directory(path)) {
        for (auto& entry : fs::recursive_directory_iterator(path)) size += entry.is_regular_file() ? entry.file_size() : 0;
    } else if (fs::exists(path)) {
        size = fs::file_size(path);
    }
    if (size != shard.at("bytes")) refuse(path.string() + " is missing or of another size");
    uint32_t rows = shard.at("rows");
    if (spec.at("store") == "lmdb") return read_lmdb(path, rows);
    if (spec.at("store") != "zarr") refuse("an unknown store");
    std::vector<Bytes> records(rows);
    size_t area = size_t(spec.at("side")) * size_t(spec.at("side"));
    append_chunks(records, path / "image" / "c.0.0.0.0", 3 * area);
    append_chunks(records, path / "person" / "c.0.0.0", area / 8);
    append_chunks(records, path / "ignore" / "c.0.0.0", area / 8);
    return records;
}

unsigned long long hash_of_plane(const Bytes& packed) {
    Bytes pixels;
    for (unsigned char byte : packed)
        for (int bit = 0; bit < 8; bit++) pixels += char(byte >> bit & 1);
    return XXH3_64bits(pixels.data(), pixels.size());
}

void print_split(const fs::path& root, const std::string& split) {
    json index = read_index(root);
    const json &spec = index.at("spec"), &info = index.at("splits").at(split);
    size_t side = spec.at("side"), area = side * side;
    Bytes table = read_file(root / split / "samples.npy");
    if (info.at("table_checksum") != xxh3_128(table)) refuse("samples.npy was changed");
    size_t at = 10 + number<uint16_t>(table, 8);
    int32_t open = -1;
    std::vector<Bytes> records;
    for (; at < table.size(); at += 56) {
        int32_t shard = number<int32_t>(table, at + 32), row = number<int32_t>(table, at + 36);
        if (shard != open) records = read_shard(root / split, spec, info.at("shards").at(shard));
        open = shard;
        const Bytes& record = records.at(row);
        if (XXH3_64bits(record.data(), record.size()) != number<uint64_t>(table, at + 48)) refuse("a damaged record");
        size_t begin = 0, size = 3 * area;
        if (spec.at("codec") == "jpeg") {
            if (record.size() < 4) refuse("a record of another length");
            begin = 4, size = number<uint32_t>(record, 0);
        } else if (spec.at("codec") != "raw") {
            refuse("an unknown codec");
        }
        if (record.size() != begin + size + area / 4) refuse("a record of another length");
        std::printf("%lld", (long long)number<int64_t>(table, at));
        for (size_t column = 8; column < 44; column += 4) std::printf(" %d", number<int32_t>(table, at + column));
        std::printf(" %.9g %016llx %016llx %016llx\n", number<float>(table, at + 44),
                    (unsigned long long)XXH3_64bits(record.data() + begin, size),
                    hash_of_plane(record.substr(begin + size, area / 8)),
                    hash_of_plane(record.substr(begin + size + area / 8)));
    }
}

int main(int count, char** arguments) try {
    if (count != 3) refuse("usage: reader CACHE SPLIT");
    print_split(arguments[1], arguments[2]);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
}
