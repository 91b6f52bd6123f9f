// A line for each further minor release is written by generate-tables.
[
    (19, ["runtime.readGOMEMLIMIT", "runtime.(*scavengerState).run", "runtime.(*gcControllerState).trigger"]),
    (20, ["runtime.(*mspan).initHeapBits", "runtime.pidlegetSpinning", "runtime.retryOnEAGAIN"]),
    (21, ["runtime.(*unwinder).next", "runtime.traceback2", "runtime.wbZero"]),
    (22, ["runtime.mrandinit", "runtime.(*_panic).nextFrame", "runtime.forEachPInternal"]),
    (23, ["runtime.(*timers).adjust", "runtime.(*timers).check", "runtime.(*timer).unlockAndRun"]),
    (24, ["runtime.mallocgcSmallNoscan", "runtime.buildGCMask", "runtime.postMallocgcDebug"]),
    (25, ["runtime.runFinalizers", "runtime.defaultGOMAXPROCS", "runtime.(*cleanupQueue).enqueue"]),
    (26, ["runtime.gcBeginWork", "runtime.gcNextMarkRoot", "runtime.exitsyscallTryGetP"]),
    (27, ["runtime.addModuleItabs", "runtime.moduleTypelinks", "runtime.mallocgcTinySlowPath"]),
]
