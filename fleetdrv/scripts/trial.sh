# shellcheck shell=sh disable=SC2034,SC2154
# Trial builds by DKMS in a scratch tree. Sourced by the *_stage programs, after job.sh and dkms.sh.
#
# A scratch tree has src/NAME-VERSION/ with the sources, tree/ and tmp/ for dkms, out/ for what comes of it.
# Its path is fixed by the caller, because a build id depends on the path: building again gives the same module.

# check_tools KERNEL…
check_tools() {
    command -v dkms >/dev/null || die 69 'dkms is not installed'
    for tool in make cc; do
        command -v "$tool" >/dev/null || die 69 "$tool is not installed: nothing can be compiled here"
    done
    for kernel; do
        [ -d "/lib/modules/$kernel/build/." ] ||
            die 66 "no headers for kernel $kernel: there is no /lib/modules/$kernel/build"
    done
}

# check_space BYTES: of packed sources. Unpacked, objects and the result: eight times that, at least 64 MiB.
check_space() {
    free=$(df -Pk "$fleetdrv" | { read -r _ && read -r _ _ _ kib _ && echo "$kib"; })
    [ "$free" -ge $((65536 + $1 / 128)) ] || die 73 "$fleetdrv: $free KiB free, too few to build"
}

# trial_build SCRATCH NAME VERSION KERNEL: the modules lie in SCRATCH/tree then; make.log of a failure is here.
trial_build() {
    code=0
    TMPDIR=$1/tmp dkms build --dkmstree "$1/tree" --sourcetree "$1/src" -j 2 \
        -m "$2" -v "$3" -k "$4" >"$1/said" 2>&1 || code=$?
    cat "$1/said"
    [ "$code" -ne 0 ] || return 0
    log=$1/tree/$2/$3/build/make.log
    if [ -e "$log" ]; then
        cp "$log" make.log
        # The compiler's first words are the reason, and often more than 30 lines from the end.
        echo "make.log of $2 $3 for kernel $4, its first errors and its last lines:" >&2
        grep -m5 -E 'error:|Killed|No space left|not found' make.log >&2 || :
        tail -n 30 make.log >&2
    fi
    if grep -qs 'No space left on device' "$1/said" make.log; then
        die 73 "kernel $4: no space left to build"
    fi
    if grep -q BUILD_EXCLUSIVE "$1/said"; then
        die 67 "$2 $3 excludes kernel $4 (BUILD_EXCLUSIVE in its dkms.conf)"
    fi
    if grep -qs 'Killed signal terminated program' make.log; then
        die 68 "$2 $3 does not compile for kernel $4: the compiler was killed, most likely for want of memory" \
            "(see dmesg); nothing is wrong with the driver, the same command tries again"
    fi
    if grep -q 'kernel headers .* cannot be found' "$1/said"; then die 66 "no headers for kernel $4"; fi
    die 68 "$2 $3 does not compile for kernel $4 (dkms exit $code)"
}

# take_build SCRATCH PREFIX NAME VERSION KERNEL: use the modules that the controller has sent along, if it has.
#
# PREFIX.KERNEL.build is a tar.gz of NAME-VERSION/dkms_main_tree/KERNEL/ARCH/module/*.ko*. It was chosen by a
# key that holds this kernel's Module.symvers and .config, compiler and sources, so the versions of symbols
# agree; vermagic costs nothing to read and is what the kernel would refuse first.
take_build() {
    sent=$2.$5.build taken=$1/sent/$3-$4/dkms_main_tree/$5
    [ -e "$sent" ] || return 1
    rm -rf "$1/sent" && mkdir -p "$1/sent" "$1/taken/$3-$4"
    if ! tar -xzf "$sent" -o -C "$1/sent"; then
        echo "$sent: cannot be unpacked; compiled here"
        return 1
    fi
    for ko in "$taken"/*/module/*.ko*; do
        magic=$(modinfo -F vermagic -- "$ko" 2>/dev/null) || magic=''
        [ "${magic%% *}" = "$5" ] && continue
        echo "$3 $4: what was sent for kernel $5 is for ${magic:-none}; compiled here"
        return 1
    done
    mv -T "$taken" "$1/taken/$3-$4/$5" || return 1
    echo "$3 $4 for kernel $5 was compiled on another node; not compiled here"
}

# pack_trial SCRATCH NAME VERSION KERNEL…: into SCRATCH/out/NAME-VERSION.dkms.tar.gz
pack_trial() {
    scratch=$1 name=$2 version=$3
    shift 3
    # Only now: dkms must not meet a version in its tree that it did not add.
    for build in "$scratch/taken/$name-$version"/*; do
        [ ! -d "$build" ] || { mkdir -p "$scratch/tree/$name/$version" &&
            mv -T "$build" "$scratch/tree/$name/$version/${build##*/}"; }
    done
    pack_build "$scratch/pack" "$scratch/out/$name-$version.dkms.tar.gz" "$scratch/tree/$name/$version" \
        "$scratch/src/$name-$version" "$@" || die 73 "$name-$version.dkms.tar.gz: cannot be written"
}
