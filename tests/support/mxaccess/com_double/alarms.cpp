#include "alarms.h"

#include <objbase.h>

#include <algorithm>
#include <cwchar>

namespace {

constexpr double DEADBAND = 3.0;
constexpr ULONGLONG SHOWN_AFTER_END = 10ULL * 10000000;

ULONGLONG filetime() {
    FILETIME time;
    GetSystemTimeAsFileTime(&time);
    return (ULONGLONG(time.dwHighDateTime) << 32) | time.dwLowDateTime;
}

template <size_t SIZE> void put(wchar_t (&target)[SIZE], const std::wstring &text) {
    const size_t count = std::min(text.size(), SIZE - 1);
    std::copy_n(text.begin(), count, target);
    target[count] = 0;
}

}  // namespace

struct Alarms::Shared {
    LONG is_made, revision, down, hanging;
    AlarmData tank;
};

class Alarms::Lock {
public:
    explicit Lock(HANDLE mutex) : mutex_(mutex) { WaitForSingleObject(mutex_, INFINITE); }
    ~Lock() { ReleaseMutex(mutex_); }

private:
    HANDLE mutex_;
};

Alarms &Alarms::all() {
    static Alarms made;
    return made;
}

Alarms::Alarms()
    : mutex_(CreateMutexW(nullptr, FALSE, L"MxgwAlarmDouble.Mutex")),
      mapping_(CreateFileMappingW(INVALID_HANDLE_VALUE, nullptr, PAGE_READWRITE, 0, sizeof(Shared), L"MxgwAlarmDouble")),
      shared_(static_cast<Shared *>(MapViewOfFile(mapping_, FILE_MAP_ALL_ACCESS, 0, 0, sizeof(Shared)))) {
    const Lock lock(mutex_);
    if (shared_->is_made) return;
    shared_->is_made = 1;
    AlarmData &tank = shared_->tank;
    put(tank.reference, L"Tank_001.Level");
    put(tank.area, L"Area_001");
    put(tank.description, L"Level, %");
    put(tank.type, L"Hi");
    tank.priority = 200;
    tank.value = 50.0;
    tank.limit = 68.0;
    tank.is_acknowledged = true;
}

LONG Alarms::revision() {
    const Lock lock(mutex_);
    return shared_->revision;
}

AlarmData Alarms::tank() {
    const Lock lock(mutex_);
    return shared_->tank;
}

std::vector<AlarmData> Alarms::listed() {
    const Lock lock(mutex_);
    const AlarmData &tank = shared_->tank;
    const ULONGLONG ended = std::max(tank.acknowledged, tank.cleared);
    if (tank.in_alarm || !tank.is_acknowledged || ended + SHOWN_AFTER_END > filetime()) return {tank};
    return {};
}

void Alarms::set_limit(double limit) {
    const Lock lock(mutex_);
    AlarmData &tank = shared_->tank;
    tank.limit = limit;
    if (tank.value > limit && !tank.in_alarm) {
        if (tank.is_acknowledged) {  // otherwise it is the same occurrence
            GUID made;
            CoCreateGuid(&made);
            swprintf(tank.guid, 40, L"%08lX%04X%04X%02X%02X%02X%02X%02X%02X%02X%02X", made.Data1, made.Data2, made.Data3, made.Data4[0],
                     made.Data4[1], made.Data4[2], made.Data4[3], made.Data4[4], made.Data4[5], made.Data4[6], made.Data4[7]);
        }
        tank.in_alarm = true;
        tank.is_acknowledged = false;
        tank.raised = filetime();
        tank.acknowledged = tank.cleared = 0;
        put(tank.comment, L"");
        put(tank.operator_name, L"");
    } else if (tank.value < limit - DEADBAND && tank.in_alarm) {
        tank.in_alarm = false;
        tank.cleared = filetime();
    }
    ++shared_->revision;
}

Acknowledged Alarms::acknowledge(const std::wstring &reference, const std::wstring &comment, const std::wstring &operator_name) {
    const Lock lock(mutex_);
    AlarmData &tank = shared_->tank;
    if (reference != tank.reference) return Acknowledged::UNKNOWN;
    if (tank.is_acknowledged) return Acknowledged::ALREADY;
    tank.is_acknowledged = true;
    tank.acknowledged = filetime();
    put(tank.comment, comment);
    put(tank.operator_name, operator_name);
    ++shared_->revision;
    return Acknowledged::NOW;
}

void Alarms::set_down(bool down) {
    const Lock lock(mutex_);
    shared_->down = down;
}

void Alarms::set_hanging(bool hanging) {
    const Lock lock(mutex_);
    shared_->hanging = hanging;
}

bool Alarms::is_down() {
    const Lock lock(mutex_);
    return shared_->down;
}

bool Alarms::is_hanging() {
    const Lock lock(mutex_);
    return shared_->hanging;
}
