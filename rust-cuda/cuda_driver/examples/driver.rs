//! Prints which CUDA driver this machine has and its devices. Runs, and says so, where there is none.

use cuda_driver as _;

fn main() {
    match cuda_driver::status() {
        Ok(driver) => println!("{driver}"),
        Err(error) => println!("{error}"),
    }
    match cust::init(cust::CudaFlags::empty()) {
        Ok(()) => match cust::device::Device::num_devices() {
            Ok(count) => println!("{count} device(s)"),
            Err(error) => println!("the devices cannot be counted: {error}"),
        },
        Err(error) => println!("cuInit: {error}"),
    }
}
