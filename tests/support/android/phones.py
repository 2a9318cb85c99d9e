"""What several phones print, to be read by the parsers and to be printed by the stand-in.

The layouts follow AOSP's sources and public issue threads (pytorch/cpuinfo#382, shield_optimizer#6, a Samsung dump);
the values are made up, and no file was copied from a phone.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PhoneTexts:
    """Texts of one phone: what its tools print, and its files under /sys."""

    texts: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)


def _cpufreq(policy: int, cpus: str, current_khz: int, most_khz: int, governor: str = "schedutil") -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpufreq/policy{policy}"
    return {
        f"{folder}/related_cpus": f"{cpus}\n",
        f"{folder}/scaling_governor": f"{governor}\n",
        f"{folder}/scaling_cur_freq": f"{current_khz}\n",
        f"{folder}/scaling_max_freq": f"{most_khz}\n",
        f"{folder}/cpuinfo_max_freq": f"{most_khz}\n",
    }


PIXEL = PhoneTexts(
    texts={
        "getprop": """[ro.build.fingerprint]: [google/raven/raven:14/UQ1A.240105.002/11119999:user/release-keys]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6 Pro]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor]
[ro.hardware]: [raven]
[ro.board.platform]: [gs101]
""",
        "dumpsys-thermalservice": """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
\tkilled: false
ThermalStatusListeners:
\tcallbacks: 1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=37.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=44.800003, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=31.793081, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
\tTemperature{mValue=-5700.0, mType=-1, mName=broken, mStatus=0}
\tTemperature{mValue=88.0, mType=8, mName=soc, mStatus=0}
\tTemperature{mValue=0.0, mType=12, mName=absent, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=5, mName=tpu_cooling}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 39.0, 43.0]}
""",
        "dumpsys-battery": """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 3270000
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4352
  temperature: 274
  technology: Li-ion
""",
        "dumpsys-power": """POWER MANAGER (dumpsys power)

Power Manager State:
  mWakefulness=Awake
  mIsPowered=true
  mPlugType=2
  mBatteryLevel=87
  mStayOn=false
Display Power: state=ON
""",
        "settings-low_power": "0\n",
        "settings-airplane_mode_on": "0\n",
    },
    files={
        **_cpufreq(0, "0 1 2 3", 1_803_000, 1_803_000),
        **_cpufreq(4, "4 5", 2_253_000, 2_253_000),
        **_cpufreq(6, "6 7", 2_802_000, 2_802_000),
        **{f"sys/devices/system/cpu/cpu{n}/cpu_capacity": "160\n" for n in range(4)},
        **{f"sys/devices/system/cpu/cpu{n}/cpu_capacity": "498\n" for n in (4, 5)},
        **{f"sys/devices/system/cpu/cpu{n}/cpu_capacity": "1024\n" for n in (6, 7)},
        "sys/devices/system/cpu/possible": "0-7\n",
        "sys/devices/system/cpu/present": "0-7\n",
        "sys/devices/system/cpu/online": "0-7\n",
        "sys/class/thermal/thermal_zone0/type": "BIG\n",
        "sys/class/thermal/thermal_zone0/temp": "41000\n",
        "sys/class/thermal/thermal_zone1/type": "battery\n",
        "sys/class/thermal/thermal_zone1/temp": "274\n",
    },
)

# A maker that appends to every service, floats with junk, clocks by cluster but no capacities.
SAMSUNG = PhoneTexts(
    texts={
        "getprop": """[ro.build.fingerprint]: [samsung/r0sxxx/r0s:13/TP1A.220624.014/S901BXXS6CWJ1:user/release-keys]
[ro.build.version.release]: [13]
[ro.build.version.sdk]: [33]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [samsung]
[ro.product.model]: [SM-S901B]
[ro.soc.model]: []
[ro.hardware.chipname]: [s5e9925]
[ro.board.platform]: [universal9925]
""",
        "dumpsys-thermalservice": """IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=66.5, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=38.0, mType=3, mName=SKIN, mStatus=1}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=37.1, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=33.4, mType=2, mName=BAT, mStatus=0}
\tTemperature{mValue=39.5, mType=3, mName=SKIN, mStatus=1}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
Temperature{mValue=99.0, mType=0, mName=not of the block, mStatus=0}
""",
        "dumpsys-battery": """Current Battery Service state:
  (UPDATES STOPPED -- use 'reset' to restart)
  AC powered: false
  USB powered: false
  Wireless powered: false
  status: 3
  health: 2
  present: true
  level: 41
  scale: 50
  voltage: 3900
  temperature: 331
  technology: Li-ion
  batteryMiscEvent: 0
  mSavedBatteryAsoc: 94
[EventLogBuffer]
  level: 3
  temperature: 999
  USB powered: true
""",
        "dumpsys-power": "  mWakefulness=Dozing\n  mIsPowered=false\nDisplay Power: state=OFF\n",
        "settings-low_power": "1\n",
    },
    files={
        **_cpufreq(0, "0-3", 960_000, 1_824_000),
        **_cpufreq(4, "4 5 6", 1_000_000, 2_515_200),
        **_cpufreq(7, "7", 1_100_000, 2_803_200),
        "sys/devices/system/cpu/possible": "0-7\n",
        "sys/devices/system/cpu/online": "0-6\n",
    },
)

# Before Android 10: no thermal service, tenths of degrees in one zone, whole degrees in another, a broken one.
OLD = PhoneTexts(
    texts={
        "getprop": """[ro.build.fingerprint]: [htc/marlin/marlin:8.1.0/X/1:user/release-keys]
[ro.build.version.release]: [8.1.0]
[ro.build.version.sdk]: [27]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [HTC]
[ro.product.model]: [HTC 10]
[ro.mediatek.platform]: [MT6797]
""",
    },
    files={
        **_cpufreq(0, "0 1", 1_000_000, 1_593_600, "interactive"),
        "sys/devices/system/cpu/possible": "0-1\n",
        "sys/class/thermal/thermal_zone0/type": "mtktscpu\n",
        "sys/class/thermal/thermal_zone0/temp": "41250\n",
        "sys/class/thermal/thermal_zone3/type": "battery\n",
        "sys/class/thermal/thermal_zone3/temp": "305\n",
        "sys/class/thermal/thermal_zone4/type": "tsens_tz_sensor0\n",
        "sys/class/thermal/thermal_zone4/temp": "39\n",
        "sys/class/thermal/thermal_zone5/type": "pa_therm\n",
        "sys/class/thermal/thermal_zone5/temp": "-40000\n",
    },
)

# A phone that says nothing at all.
SILENT = PhoneTexts(texts={"getprop": ""})

TWO_CORES = {key: value for key, value in OLD.files.items() if "scaling" in key or "cpuinfo" in key or "related" in key}
