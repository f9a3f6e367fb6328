//! CPU time to seal an original, and to find that it need not be sealed, in microseconds: `cargo bench -p vault`.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use vault::{Cache, CachingSealer, Kind, Mask, Recipients, Sealer};

const ROUNDS: usize = 200_000;
/// What a busy process remembers.
const CACHED: usize = 100_000;
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

fn main() {
    let recipients = Recipients::parse(RECIPIENT.as_bytes()).unwrap();
    let masks: Vec<Mask> = (0..CACHED).map(mask).collect();
    let texts: Vec<String> = masks.iter().map(Mask::to_string).collect();

    let mut sealer = Sealer::new(recipients.clone());
    measure("seal an ip", ROUNDS, |round| {
        black_box(
            sealer
                .seal(
                    Kind::Ip,
                    masks[round % CACHED],
                    black_box("199.172.111.135"),
                )
                .unwrap(),
        );
    });
    let uuid = "424cdd21-063a-43a7-b91b-7ca1a833afae";
    measure("seal a device id", ROUNDS, |round| {
        black_box(
            sealer
                .seal(Kind::DeviceId, masks[round % CACHED], black_box(uuid))
                .unwrap(),
        );
    });
    measure("read a mask", ROUNDS, |round| {
        black_box(black_box(&texts[round % CACHED]).parse::<Mask>().unwrap());
    });

    let mut sealer = CachingSealer::new(recipients.clone(), 1_000);
    let mut seal = |mask| {
        black_box(
            sealer
                .seal(Kind::Ip, mask, black_box("199.172.111.135"))
                .unwrap(),
        )
    };
    measure("seal an ip that is new", ROUNDS, |round| {
        drop(seal(masks[round % CACHED]))
    });
    measure("seal an ip again", ROUNDS, |round| {
        drop(seal(masks[round % 100]))
    });

    let mut cache = Cache::new(CACHED);
    cache.committed(masks.iter().map(|&mask| (mask, 0)));
    measure("find a mask in the cache", ROUNDS, |round| {
        black_box(cache.contains(masks[round % CACHED], 0));
    });
    measure("miss a mask in the cache", ROUNDS, |round| {
        assert!(!cache.contains(masks[round % CACHED], 1));
    });
    measure("commit a mask to the cache", ROUNDS, |round| {
        cache.committed([(masks[round % CACHED], 0)]);
    });

    measure("make and wrap a data key", 200, |_| {
        black_box(
            Sealer::new(recipients.clone())
                .seal(Kind::Ip, masks[0], "")
                .unwrap(),
        );
    });
}

/// Masks are digests: their bits look random.
fn mask(number: usize) -> Mask {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(number.to_le_bytes()))
        .parse()
        .unwrap()
}

fn measure(name: &str, rounds: usize, mut work: impl FnMut(usize)) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            (0..rounds).for_each(&mut work);
            start.elapsed().as_secs_f64() * 1e6 / rounds as f64
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:>28}: {best:.3} µs");
}
