use inspector::capture::cpu::{bpf::Bpf, collect::Collected, known::Known, source::*};
use inspector::process::Process;
use std::time::{Duration, Instant};
fn view_go(k: &Known, ip: u64) -> bool {
    k.view.as_ref().is_some_and(|v| v.modules.lookup(ip).is_none())
}
fn main() {
    let pid: inspector::process::Pid = std::env::args().nth(1).unwrap().parse().unwrap();
    let secs: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let t = Instant::now();
    let process = Process::pin(pid).unwrap();
    let mut known = Known::open(&process).unwrap();
    println!("{:?} {:?}", known.go_target(), t.elapsed());
    let mut bpf = Bpf::load(probe_ebpf::cpu::Options {
        rate: 99,
        whole_system: false,
        kernel_frames: true,
        stack: 16384,
        follow: true,
    })
    .unwrap();
    println!("loaded {:?}", t.elapsed());
    bpf.add(pid, known.go_target().as_ref()).unwrap();
    bpf.start().unwrap();
    println!("started {:?}", t.elapsed());
    let mut c = Collected::default();
    let end = Instant::now() + Duration::from_secs(secs);
    while Instant::now() < end {
        bpf.poll(Duration::from_millis(100), &mut |e| match e {
            Event::Sample(s) => {
                if s.user.is_some_and(|u| view_go(&known, u.ip)) && s.frames.len() < 3 {
                    println!("{:x?} {} {:x?} {}", s.user, s.hopped, s.frames, s.stack.len());
                }
                c.add(&s, Some(&mut known), false)
            }
            o => println!("{o:?}"),
        })
        .unwrap();
    }
    println!("{:?} {:?}", c.quality(), bpf.counts());
    let view = known.view.as_ref();
    let mut all: Vec<_> = c.samples().collect();
    all.sort_by_key(|a| std::cmp::Reverse(a.1));
    let name = |pc: u64| {
        view.and_then(|v| v.modules.lookup(pc))
            .map_or(format!("{pc:#x}"), |p| p.func.name_text().into_owned())
    };
    for (k, n) in all.iter().take(12) {
        let v: Vec<_> = k.places.iter().map(|p| name(if p.exact { p.pc } else { p.pc - 1 })).collect();
        println!("{n} goid {:?} kernel {} {}", k.goid, k.kernel.len(), v.join(" < "));
    }
    println!("-- not rooted");
    for (k, n) in all
        .iter()
        .filter(|(k, _)| {
            !k.places.last().is_some_and(|p| {
                name(p.pc - 1).starts_with("runtime.g") || name(p.pc - 1).starts_with("runtime.m")
            })
        })
        .take(10)
    {
        let v: Vec<_> = k.places.iter().map(|p| name(if p.exact { p.pc } else { p.pc - 1 })).collect();
        println!("{n} goid {:?} kernel {} {}", k.goid, k.kernel.len(), v.join(" < "));
    }
}
