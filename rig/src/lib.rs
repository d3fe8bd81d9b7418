//! A camera ring around a vehicle and 3D boxes whose key points it sees.
//!
//! On real driving data a 3D point is seen by about one camera of six. Random locations over all cameras
//! mis-rank implementations of deformable aggregation, so its benchmarks and examples project the key points of boxes into such a
//! ring.
//!
//! Axes: x forward, y left, z up, metres, the origin in the middle of the ring at the height of the cameras.

use rand::{Rng, RngExt};

/// Smallest depth by which a projection divides, as in the models.
pub const MIN_DEPTH: f64 = 1e-5;

/// Radius of the disc on which anchors lie, in metres.
pub const RADIUS: f64 = 55.0;

/// Image width over image height.
pub const ASPECT: f64 = 704.0 / 256.0;

/// Distance of every camera from the middle of the ring, in metres.
const MOUNT: f64 = 1.5;

/// Length, width and height of a box before its random factor, in metres.
const BOX: [f64; 3] = [4.5, 2.0, 1.7];

/// A camera that looks level, away from the middle of the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    /// Direction of view in degrees, positive to the left.
    pub yaw_degrees: f64,
    /// Horizontal field of view in degrees.
    pub fov_degrees: f64,
}

/// Where a point lands in an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Projection {
    /// Fraction of the image width, 0 at the left edge.
    pub x: f64,
    /// Fraction of the image height, 0 at the top edge.
    pub y: f64,
    /// Metres along the direction of view; not positive behind the camera.
    pub depth: f64,
}

impl Projection {
    /// Whether the operator's border rule counts the point.
    pub fn is_inside(&self) -> bool {
        self.x > 0.0 && self.x < 1.0 && self.y > 0.0 && self.y < 1.0
    }
}

impl Camera {
    /// Focal length in image widths.
    pub fn focal(&self) -> f64 {
        0.5 / (self.fov_degrees.to_radians() / 2.0).tan()
    }

    /// Position in metres.
    pub fn position(&self) -> [f64; 3] {
        let (sin, cos) = self.yaw_degrees.to_radians().sin_cos();
        [MOUNT * cos, MOUNT * sin, 0.0]
    }

    /// Projects a point given in metres.
    pub fn project(&self, point: [f64; 3]) -> Projection {
        let (sin, cos) = self.yaw_degrees.to_radians().sin_cos();
        let depth = cos * point[0] + sin * point[1] - MOUNT;
        let right = sin * point[0] - cos * point[1];
        let divisor = depth.max(MIN_DEPTH);
        let focal = self.focal();
        // The image centre enters before the division, as in a projection matrix: what the clamp does to
        // points behind the camera depends on it.
        Projection {
            x: (focal * right + 0.5 * depth) / divisor,
            y: (focal * ASPECT * -point[2] + 0.5 * depth) / divisor,
            depth,
        }
    }

    /// The projection as a matrix: from (x, y, z, 1) in metres to (image fraction x · depth, image fraction y · depth, depth, 1).
    pub fn matrix(&self) -> [[f64; 4]; 4] {
        let (sin, cos) = self.yaw_degrees.to_radians().sin_cos();
        let focal = self.focal();
        let depth = [cos, sin, 0.0, -MOUNT];
        let right = [sin, -cos, 0.0, 0.0];
        let down = [0.0, 0.0, -ASPECT, 0.0];
        let image = |axis: [f64; 4]| -> [f64; 4] {
            std::array::from_fn(|column| focal * axis[column] + 0.5 * depth[column])
        };
        [image(right), image(down), depth, [0.0, 0.0, 0.0, 1.0]]
    }

    /// The direction, in metres per metre of depth, of the ray through a point of the image.
    pub fn ray(&self, x: f64, y: f64) -> [f64; 3] {
        let (sin, cos) = self.yaw_degrees.to_radians().sin_cos();
        let right = (x - 0.5) / self.focal();
        [cos + sin * right, sin - cos * right, (0.5 - y) / (self.focal() * ASPECT)]
    }
}

/// The ring of that many cameras.
///
/// Six stand as on the usual data sets: front, ±55°, ±110° with 70° each and a rear camera of 110°.
/// Any other number stands evenly around with 70° each.
pub fn ring(cameras: usize) -> Vec<Camera> {
    if cameras == 6 {
        return [0.0, 55.0, -55.0, 110.0, -110.0, 180.0]
            .into_iter()
            .map(|yaw_degrees| Camera {
                yaw_degrees,
                fov_degrees: if yaw_degrees == 180.0 { 110.0 } else { 70.0 },
            })
            .collect();
    }
    (0..cameras)
        .map(|index| Camera {
            yaw_degrees: 360.0 * index as f64 / cameras as f64,
            fov_degrees: 70.0,
        })
        .collect()
}

/// An upright 3D box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// Middle of the box in metres.
    pub centre: [f64; 3],
    /// Length, width and height in metres.
    pub size: [f64; 3],
    /// Direction of the length in radians.
    pub heading: f64,
}

impl Anchor {
    /// A box somewhere on the disc.
    pub fn random(rng: &mut impl Rng) -> Self {
        let radius = RADIUS * rng.random::<f64>().sqrt();
        let bearing = rng.random_range(0.0..std::f64::consts::TAU);
        let factor = rng.random_range(0.4..1.3);
        Self {
            centre: [radius * bearing.cos(), radius * bearing.sin(), rng.random_range(-1.0..0.5)],
            size: BOX.map(|side| side * factor),
            heading: rng.random_range(0.0..std::f64::consts::TAU),
        }
    }

    /// The point at an offset given in fractions of the box's sides, each within ±0.5.
    pub fn point(&self, offset: [f64; 3]) -> [f64; 3] {
        let (sin, cos) = self.heading.sin_cos();
        let [x, y, z] = [0, 1, 2].map(|axis| offset[axis] * self.size[axis]);
        [self.centre[0] + cos * x - sin * y, self.centre[1] + sin * x + cos * y, self.centre[2] + z]
    }

    /// The box at rest as the models describe it: x, y, z, the logarithms of length, width and height, sine and cosine of the heading,
    /// and three velocities.
    pub fn numbers(&self) -> [f64; 11] {
        let ([x, y, z], (sin, cos)) = (self.centre, self.heading.sin_cos());
        let [length, width, height] = self.size.map(f64::ln);
        [x, y, z, length, width, height, sin, cos, 0.0, 0.0, 0.0]
    }

    /// A key point: the first is the centre, the others are uniform in the box.
    pub fn key_point(&self, index: usize, rng: &mut impl Rng) -> [f64; 3] {
        if index == 0 {
            return self.centre;
        }
        self.point([(); 3].map(|()| rng.random_range(-0.5..0.5)))
    }

    /// The eight corners; bit 0, 1 and 2 of the index choose the side of length, width and height.
    pub fn corners(&self) -> [[f64; 3]; 8] {
        std::array::from_fn(|corner| {
            self.point([0, 1, 2].map(|axis| if corner >> axis & 1 == 1 { 0.5 } else { -0.5 }))
        })
    }
}

/// A drawn scene: the ring, the boxes and their key points.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The cameras.
    pub cameras: Vec<Camera>,
    /// The boxes.
    pub anchors: Vec<Anchor>,
    /// Key points of every box, in metres.
    pub key_points: Vec<Vec<[f64; 3]>>,
}

impl Scene {
    /// Draws boxes and their key points.
    pub fn random(cameras: usize, anchors: usize, points: usize, rng: &mut impl Rng) -> Self {
        let mut scene =
            Self { cameras: ring(cameras), anchors: Vec::new(), key_points: Vec::new() };
        for _ in 0..anchors {
            let anchor = Anchor::random(rng);
            scene.key_points.push((0..points).map(|index| anchor.key_point(index, rng)).collect());
            scene.anchors.push(anchor);
        }
        scene
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_point_straight_ahead_is_in_the_middle_of_its_camera() {
        for camera in ring(6) {
            let (sin, cos) = camera.yaw_degrees.to_radians().sin_cos();
            let projection = camera.project([20.0 * cos, 20.0 * sin, 0.0]);
            assert!((projection.x - 0.5).abs() < 1e-12, "{camera:?}");
            assert!((projection.y - 0.5).abs() < 1e-12);
            assert!((projection.depth - 18.5).abs() < 1e-12);
        }
    }

    #[test]
    fn the_matrix_projects_as_the_camera_does() {
        for (camera, point) in
            ring(6).iter().zip([[9.0, -4.0, 1.5], [-3.0, 7.0, -0.5]].iter().cycle())
        {
            let rows = camera
                .matrix()
                .map(|row| row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]);
            let projection = camera.project(*point);
            let divisor = rows[2].max(MIN_DEPTH);
            assert!((rows[2] - projection.depth).abs() < 1e-12);
            assert!((rows[0] / divisor - projection.x).abs() < 1e-9 * projection.x.abs().max(1.0));
            assert!((rows[1] / divisor - projection.y).abs() < 1e-9 * projection.y.abs().max(1.0));
        }
    }

    #[test]
    fn left_and_up_land_left_and_up() {
        let projection = ring(6)[0].project([10.0, 2.0, 0.5]);
        assert!(projection.x < 0.5 && projection.y < 0.5 && projection.is_inside());
    }

    #[test]
    fn points_behind_a_camera_are_not_seen() {
        let camera = ring(6)[0];
        for point in [[-10.0, 3.0, 0.1], [-10.0, -3.0, -0.1], [0.0, 5.0, 0.4]] {
            assert!(!camera.project(point).is_inside(), "{point:?}");
        }
    }

    #[test]
    fn the_ray_of_a_projection_passes_through_the_point() {
        let camera = ring(6)[3];
        let origin = camera.position();
        let target = [-6.0, 19.0, -1.0];
        let projection = camera.project(target);
        let ray = camera.ray(projection.x, projection.y);
        for axis in 0..3 {
            let reached = origin[axis] + ray[axis] * projection.depth;
            assert!((reached - target[axis]).abs() < 1e-9);
        }
    }

    #[test]
    fn a_point_is_seen_by_about_one_camera_of_six() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let scene = Scene::random(6, 900, 13, &mut rng);
        let seen: usize = scene
            .key_points
            .iter()
            .flatten()
            .map(|&point| {
                scene.cameras.iter().filter(|camera| camera.project(point).is_inside()).count()
            })
            .sum();
        let per_point = seen as f64 / (900.0 * 13.0);
        assert!((1.1..1.3).contains(&per_point), "{per_point}");
    }
}
